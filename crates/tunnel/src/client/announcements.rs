//! What the operating system and programs are told: the interface, its routes and name servers, and what can be reached.

use std::time::Instant;

use connlib_wire::portal::client as portal;

use super::{Client, Event, Interface};
use crate::ranges;

impl Client {
    pub(super) fn set_interface(&mut self, now: Instant, interface: &portal::Interface) {
        self.addresses = Some((interface.ipv4, interface.ipv6));
        self.search_domain.clone_from(&interface.search_domain);
        self.name_server.configure(now, interface);
        if self.name_server.has_other_servers {
            self.ask_anew(now);
        }
    }

    pub(super) fn resources_changed(&mut self) {
        self.requests.forget_refusals();
        self.ask_anew(self.last_now);
        self.route_waiting_again(self.last_now);
        for why in self.resources.take_complaints() {
            tracing::info!("{why}");
        }
        self.announce_interface();
        self.list_resources();
    }

    /// Tells what can be reached.
    pub(super) fn list_resources(&mut self) {
        let views = self.resources.views(&self.sites);
        self.listed.clone_from(&views);
        self.events.push_back(Event::ResourcesChanged(views));
    }

    /// Tells of the interface, and of servers to get ready for, if they differ from what was told last.
    pub(super) fn announce_interface(&mut self) {
        let Some((ipv4, ipv6)) = self.addresses else {
            return;
        };
        let mut routes = ranges::CLIENT.to_vec();
        routes.extend(self.resources.networks());
        let interface = Interface {
            ipv4,
            ipv6,
            routes,
            name_servers: self.name_server.sentinels.addresses().collect(),
            search_domain: self.search_domain.clone(),
        };
        if self.announced.as_ref() != Some(&interface) {
            self.announced = Some(interface.clone());
            self.events.push_back(Event::InterfaceChanged(interface));
        }
        let https_servers = self.name_server.sentinels.https_servers();
        if self.announced_https != https_servers {
            self.announced_https.clone_from(&https_servers);
            self.events
                .push_back(Event::HttpsServersChanged(https_servers));
        }
    }
}
