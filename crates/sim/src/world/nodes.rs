//! Turns, and what comes of them.

use connlib::event_loop::Output;
use connlib_tunnel::client;
use connlib_tunnel::gateway::{self, Gateway};
use connlib_wire::portal::{client as to_client, gateway as to_gateway, phoenix};

use super::host::Role;
use super::{Happening, STALL, World};
use crate::apps::ECHO_AFTER;
use crate::host::Turned;
use crate::hostile::AnyClient;
use crate::log;

impl World {
    pub(super) fn take_turn(&mut self, host: usize) {
        let (now, unix) = (self.now, self.unix());
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        match &mut entry.role {
            Role::Client(node) => {
                let turned = node.turn(now);
                self.hear_log(host);
                self.after_client(host, turned);
            }
            Role::Gateway(node) => {
                let turned = node.turn(now);
                self.hear_log(host);
                self.after_gateway(host, turned);
            }
            Role::Relay(node) => {
                let turned = node.turn(now, unix);
                self.hear_log(host);
                match turned {
                    Ok(trains) => self.launch(host, trains, true),
                    Err(fatal) => self.violate(format!("a fatal error: {fatal}")),
                }
            }
            Role::Down => {}
        }
    }

    /// A clean run has no warning, and paths tell when they change.
    fn hear_log(&mut self, host: usize) {
        for line in log::take() {
            if line.is_warning {
                let name = self.scenario.host(host).to_owned();
                self.violate(format!("{name} warns: {}", line.text));
            } else {
                let is_portal = line.text.starts_with("connlib_portal");
                let host = if is_portal { usize::MAX } else { host };
                self.watch.hear(self.now, host, line.text);
            }
        }
    }

    fn after_client(&mut self, host: usize, turned: Turned<AnyClient>) {
        let keeps_order = self.watch.keeps_order(self.now);
        for output in &turned.outputs {
            self.hear_of_names(host, output);
        }
        for packet in &turned.packets {
            self.trace.add(self.elapsed(), "a client's TUN", packet);
            if self.hear_name_server(host, packet) {
                continue;
            }
            if let Err(what) = self.is_error_its_own(host, packet) {
                self.violate(what);
            }
            match self.apps.reply(self.now, host, packet, keeps_order) {
                Ok(None) => {}
                Ok(Some(flow)) => self.send_for(flow),
                Err(what) => self.violate(what),
            }
        }
        for output in turned.outputs {
            match output {
                Output::Message(message) => {
                    let text = phoenix::push(to_client::TOPIC, message.event(), &message, Some(1));
                    self.say(host, text);
                }
                Output::Event(client::Event::InterfaceChanged(interface)) => {
                    if let Some(entry) = self.hosts.get_mut(host) {
                        entry.addresses = Some((interface.ipv4, interface.ipv6));
                    }
                }
                Output::Exchange(exchange) => self.carry(host, exchange),
                Output::Event(_) | Output::Status(..) | Output::Explained(_) => {}
            }
        }
        self.launch(host, turned.trains, false);
        self.after(host, turned.fatal, turned.is_stalled);
    }

    fn after_gateway(&mut self, host: usize, turned: Turned<Gateway>) {
        let keeps_order = self.watch.keeps_order(self.now);
        for packet in turned.packets {
            self.trace.add(self.elapsed(), "a gateway's TUN", &packet);
            if self.hear_forged(host, &packet) || self.ask_site(host, &packet) {
                continue;
            }
            match self.apps.request(self.now, &packet, keeps_order) {
                Ok(request) => {
                    let client = self.hosts.get(request.host);
                    let address =
                        client.and_then(|client| client.address(request.source.is_ipv4()));
                    let verdict = if address == Some(request.source) {
                        self.may_arrive(host, &request)
                    } else {
                        let (source, flow) =
                            (request.source, self.scenario.flow_name(request.flow));
                        Err(format!("a packet of `{flow}` came out from {source}"))
                    };
                    match verdict {
                        Ok(()) => {
                            let answer = self.answer_of(&request, &packet);
                            self.post(ECHO_AFTER, Happening::Echo(host, answer));
                        }
                        Err(what) => self.violate(what),
                    }
                }
                Err(what) => self.violate(what),
            }
        }
        for output in turned.outputs {
            match output {
                Output::Message(message) => {
                    let text = phoenix::push(to_gateway::TOPIC, message.event(), &message, Some(1));
                    self.say(host, text);
                }
                Output::Event(gateway::Event::InterfaceChanged(interface)) => {
                    if let Some(entry) = self.hosts.get_mut(host) {
                        entry.addresses = Some((interface.ipv4, interface.ipv6));
                    }
                }
                Output::Exchange(exchange) => self.carry(host, exchange),
                Output::Event(_) | Output::Status(..) | Output::Explained(_) => {}
            }
        }
        self.launch(host, turned.trains, false);
        self.after(host, turned.fatal, turned.is_stalled);
    }

    fn after(&mut self, host: usize, fatal: Option<String>, is_stalled: bool) {
        if let Some(entry) = self.hosts.get_mut(host)
            && is_stalled
            && !entry.is_stalled
        {
            entry.is_stalled = true;
            self.post(STALL, Happening::Unstall(host));
        }
        if let Some(fatal) = fatal {
            self.violate(format!("a fatal error: {fatal}"));
        }
    }
}
