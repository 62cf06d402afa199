//! The addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::RouteType;

use super::error::{NetlinkError, errno};
use super::{Families, Netlink, means_no_ipv6};

impl Netlink {
    /// Makes these the only addresses of the interface, as single hosts (/32 and /128). What is there already stays.
    ///
    /// Returns which are set: without an IPv6 stack the IPv6 address is left out. The interface also stops to give itself
    /// a link-local IPv6 address.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`]; [`NetlinkError::NoIpv6`] if only an IPv6 address was asked for.
    pub async fn set_addresses(
        &mut self,
        name: &str,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<Families, NetlinkError> {
        self.stop_link_local(name).await?;
        let index = self.link_index(name).await?;
        let wanted = [
            v4.map(|ip| IpNet::from(IpAddr::from(ip))),
            v6.map(|ip| IpNet::from(IpAddr::from(ip))),
        ];

        for message in self.address_messages(index, name).await? {
            if wanted.contains(&address_of(&message)) {
                continue;
            }
            match self.handle.address().del(message).execute().await {
                Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => {}
                result => result.map_err(|error| {
                    NetlinkError::from_reply(format!("remove an address of {name}"), error)
                })?,
            }
        }

        let mut set = Families::default();
        for address in wanted.into_iter().flatten() {
            match (address, self.add_address_to(index, name, address).await) {
                (IpNet::V4(_), Ok(())) => set.v4 = true,
                (IpNet::V6(_), Ok(())) => set.v6 = true,
                (IpNet::V6(_), Err(NetlinkError::NoIpv6 { .. })) if set.v4 => {
                    tracing::debug!(
                        name,
                        "no IPv6 here; the interface gets an IPv4 address only"
                    );
                }
                (_, Err(error)) => return Err(error),
            }
        }

        Ok(set)
    }

    /// Adds an address with the prefix of the network that is reached by the interface; no error if it is there.
    ///
    /// An IPv6 address is not probed for duplicates; it can be used as soon as the interface has [settled](Self::settle).
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], [`NetlinkError::NoIpv6`].
    pub async fn add_address(&mut self, name: &str, address: IpNet) -> Result<(), NetlinkError> {
        let index = self.link_index(name).await?;

        self.add_address_to(index, name, address).await
    }

    /// The interface's addresses with their prefixes, in the kernel's order.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`].
    pub async fn addresses(&mut self, name: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let index = self.link_index(name).await?;
        let messages = self.address_messages(index, name).await?;

        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Waits until packets to the interface's IPv6 addresses are ours. The kernel makes them so some time after the
    /// interface has got its carrier, which for one end of a pair is when the other one is brought up.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or [`NetlinkError::NotReady`] if a second was not enough.
    pub async fn settle(&mut self, name: &str) -> Result<(), NetlinkError> {
        for address in self.addresses(name).await? {
            let IpAddr::V6(ip) = address.addr() else {
                continue;
            };
            // Link-local ones are probed for duplicates first, and nobody asked for them.
            if ip.is_unicast_link_local() {
                continue;
            }
            self.settle_address(name, ip).await?;
        }

        Ok(())
    }

    async fn settle_address(&mut self, name: &str, ip: Ipv6Addr) -> Result<(), NetlinkError> {
        for _ in 0..SETTLE_ATTEMPTS {
            if self.is_local(ip).await? {
                return Ok(());
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }

        Err(NetlinkError::NotReady { name: name.into() })
    }

    /// Whether the kernel takes packets to `ip` as its own.
    async fn is_local(&mut self, ip: Ipv6Addr) -> Result<bool, NetlinkError> {
        let question = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(ip, 128)
            .build();
        let answer = self.handle.route().get(question).execute();

        match answer.try_collect::<Vec<_>>().await {
            Ok(routes) => Ok(routes
                .iter()
                .any(|route| route.header.kind == RouteType::Local)),
            // No route at all.
            Err(error) if errno(&error) == Some(libc::ENETUNREACH) => Ok(false),
            Err(error) => Err(NetlinkError::from_reply("ask for a route", error)),
        }
    }

    async fn add_address_to(
        &mut self,
        index: u32,
        name: &str,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            let no_probe = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(no_probe);
        }

        match request.execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            Err(error) if address.addr().is_ipv6() && means_no_ipv6(errno(&error)) => {
                Err(NetlinkError::NoIpv6 { name: name.into() })
            }
            result => result.map_err(|error| {
                NetlinkError::from_reply(format!("add the address {address} to {name}"), error)
            }),
        }
    }

    async fn address_messages(
        &mut self,
        index: u32,
        name: &str,
    ) -> Result<Vec<AddressMessage>, NetlinkError> {
        let request = self.handle.address().get().set_link_index_filter(index);

        request.execute().try_collect().await.map_err(|error| {
            NetlinkError::from_reply(format!("list the addresses of {name}"), error)
        })
    }

    /// A link-local address that is still being probed can't be removed, so there shall be none.
    async fn stop_link_local(&mut self, name: &str) -> Result<(), NetlinkError> {
        let none =
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
                In6AddrGenMode::None,
            )])]);
        let stopped = self
            .change_link(name, "stop link-local addresses", |link| {
                link.append_extra_attribute(none)
            })
            .await;

        match stopped {
            // Without IPv6 there is nothing to stop, and old kernels can't.
            Err(NetlinkError::Os { source, .. }) => {
                tracing::debug!(name, %source, "link-local addresses stay");
                Ok(())
            }
            result => result,
        }
    }
}

/// How often [`Netlink::settle`] asks for each address, and how long it waits in between.
const SETTLE_ATTEMPTS: usize = 1000;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// The interface's own address in a listing.
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| {
        if let AddressAttribute::Local(ip) = attribute {
            Some(*ip)
        } else {
            None
        }
    });
    // Only IPv4 has the former; on links with two ends the latter is the other one's there.
    let ip = local.or_else(|| {
        attributes().find_map(|attribute| {
            if let AddressAttribute::Address(ip) = attribute {
                Some(*ip)
            } else {
                None
            }
        })
    })?;

    IpNet::new(ip, message.header.prefix_len).ok()
}
