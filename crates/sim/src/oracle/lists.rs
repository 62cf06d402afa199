//! What a client says can be reached (client.md §2.4).

use std::time::Instant;

use connlib_tunnel::client::{Reachability, ResourceView};
use connlib_wire::portal::resource::Resource;

use super::Names;
use super::names::{LAG, during};
use super::view::View;

impl View {
    /// What the client must say from here on: the Internet first, then by name, and of equal names by id. Whether it can be reached is another matter.
    pub(super) fn list(&mut self, now: Instant) {
        let mut list: Vec<ResourceView> = self.resources.values().filter_map(shown).collect();
        let place = |it: &ResourceView| (it.address.is_some(), it.name.clone(), it.id);
        list.sort_by_key(place);
        if self.lists.last().is_none_or(|(_, last)| *last != list) {
            self.lists.push((now, list));
        }
    }
}

fn shown(resource: &Resource) -> Option<ResourceView> {
    let (id, name) = (resource.id(), resource.name().to_owned());
    match resource {
        Resource::Cidr(resource) => Some(ResourceView {
            id,
            name,
            address: Some(resource.address.to_string()),
            description: resource.address_description.clone(),
            sites: resource.sites.0.clone(),
            reach: Reachability::Unknown,
        }),
        Resource::Dns(resource) => Some(ResourceView {
            id,
            name,
            address: Some(resource.address.clone()),
            description: resource.address_description.clone(),
            sites: resource.sites.0.clone(),
            reach: Reachability::Unknown,
        }),
        Resource::Internet(resource) => Some(ResourceView {
            id,
            name,
            address: None,
            description: None,
            sites: resource.sites.0.clone(),
            reach: Reachability::Unknown,
        }),
        _ => None,
    }
}

impl Names {
    /// A client says what can be reached.
    pub(crate) fn lists(
        &mut self,
        now: Instant,
        host: usize,
        list: &[ResourceView],
    ) -> Result<(), String> {
        let list = list.iter().map(|view| ResourceView {
            reach: Reachability::Unknown,
            ..view.clone()
        });
        let list: Vec<_> = list.collect();
        let view = self.view_mut(host);
        view.listed = Some(list.clone());
        let from = now.checked_sub(LAG).unwrap_or(now);
        let is_right = during(&view.lists, from, now).any(|expected| *expected == list);

        match is_right {
            true => Ok(()),
            false => Err(format!("the list of resources is {list:?}")),
        }
    }

    /// Whether a client has said so by now.
    pub(crate) fn is_listed(&self, now: Instant, host: usize) -> Result<(), String> {
        let Some(view) = self.view(host) else {
            return Ok(());
        };
        let from = now.checked_sub(LAG * 3).unwrap_or(now);
        let mut expected = during(&view.lists, from, now).peekable();
        let is_right =
            expected.peek().is_none() || expected.any(|list| view.listed.as_ref() == Some(list));

        match is_right {
            true => Ok(()),
            false => Err(format!("the list of resources is still {:?}", view.listed)),
        }
    }
}
