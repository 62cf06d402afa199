//! Routes, and the rules that say which table of them counts.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::error::{NetlinkError, errno};
use super::{Families, Netlink, means_no_ipv6};

/// The table that routes are in unless they say otherwise (`main`).
pub const MAIN_TABLE: u32 = 254;

/// What becomes of packets that a route matches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouteKind {
    /// They go on.
    Unicast,
    /// They are refused: local senders get EACCES, others an ICMP message.
    Prohibit,
    /// They vanish; a local sender gets EINVAL.
    Blackhole,
}

/// A route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteSpec {
    /// Where it leads. Bits behind the prefix don't matter.
    pub dst: IpNet,
    /// The router that takes the packets, if the destination is not on the link.
    pub via: Option<IpAddr>,
    /// The interface that the packets leave by. Follows from `via` if that is given.
    pub dev: Option<String>,
    /// The table it is in.
    pub table: u32,
    /// What becomes of the packets.
    pub kind: RouteKind,
}

impl RouteSpec {
    /// A route by an interface, for destinations that are on its link.
    pub fn by_dev(dst: IpNet, dev: impl Into<String>) -> Self {
        Self {
            dev: Some(dev.into()),
            ..Self::prohibit(dst).of_kind(RouteKind::Unicast)
        }
    }

    /// A route by a router.
    pub fn by_router(dst: IpNet, via: IpAddr) -> Self {
        Self {
            via: Some(via),
            ..Self::prohibit(dst).of_kind(RouteKind::Unicast)
        }
    }

    /// A route that refuses packets.
    pub fn prohibit(dst: IpNet) -> Self {
        Self {
            dst,
            via: None,
            dev: None,
            table: MAIN_TABLE,
            kind: RouteKind::Prohibit,
        }
    }

    /// A route that lets packets vanish.
    pub fn blackhole(dst: IpNet) -> Self {
        Self::prohibit(dst).of_kind(RouteKind::Blackhole)
    }

    /// Puts the route into another table.
    #[must_use]
    pub fn in_table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    fn of_kind(mut self, kind: RouteKind) -> Self {
        self.kind = kind;
        self
    }
}

/// A rule: what does *not* carry a mark is routed by a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RuleSpec {
    /// The firewall mark that exempts a packet.
    pub unless_marked: u32,
    /// The table for all others. If it has no route for a packet, the next rule decides.
    pub table: u32,
    /// Whether the table's routes to everything count for nothing, as if they weren't there.
    pub skips_defaults: bool,
    /// Its place among the rules; lower ones come first. `main` has 32766.
    pub priority: u32,
}

/// A rule: what comes from some addresses is routed by a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceRuleSpec {
    /// The addresses that the rule is about; bits behind the prefix don't matter. Its IP version is the rule's.
    pub from: IpNet,
    /// The table for them. If it has no route for a packet, the next rule decides.
    pub table: u32,
    /// Its place among the rules; lower ones come first. `main` has 32766.
    pub priority: u32,
}

impl Netlink {
    /// Adds a route; no error if it is there, or leads to IPv6 on a machine without.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], [`NetlinkError::MixedFamilies`], or the router is not reachable.
    pub async fn add_route(&mut self, route: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route_message(route).await?;

        match self.handle.route().add(message).execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            Err(error) if route.dst.addr().is_ipv6() && means_no_ipv6(errno(&error)) => {
                tracing::debug!("no IPv6 here; a route was left out");
                Ok(())
            }
            result => result.map_err(|error| {
                NetlinkError::from_reply(format!("add a route to {}", route.dst), error)
            }),
        }
    }

    /// Removes a route; no error if it, its interface or IPv6 isn't there.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::PermissionDenied`].
    pub async fn delete_route(&mut self, route: &RouteSpec) -> Result<(), NetlinkError> {
        let message = match self.route_message(route).await {
            // Routes go with their interface.
            Err(NetlinkError::NoSuchInterface { .. }) => return Ok(()),
            result => result?,
        };

        self.delete_route_message(message).await
    }

    /// Makes `wanted` the only routes of `table` that lead by the interface `dev`. What is there already stays.
    ///
    /// All of it is tried, whatever fails.
    ///
    /// # Errors
    ///
    /// The first one; [`NetlinkError::NoSuchInterface`] before anything is changed.
    pub async fn set_routes(
        &mut self,
        table: u32,
        dev: &str,
        wanted: &[IpNet],
    ) -> Result<(), NetlinkError> {
        let index = self.link_index(dev).await?;
        let by_dev = RouteAttribute::Oif(index);
        let mut result = Ok(());

        for message in self.route_messages(table).await? {
            let is_wanted = dst_of(&message)
                .is_none_or(|dst| wanted.iter().any(|wanted| wanted.trunc() == dst));
            if message.attributes.contains(&by_dev) && !is_wanted {
                result = result.and(self.delete_route_message(message).await);
            }
        }
        for &dst in wanted {
            let route = RouteSpec::by_dev(dst, dev).in_table(table);
            result = result.and(self.add_route(&route).await);
        }

        result
    }

    /// Where the routes of `table` lead, in the kernel's order.
    ///
    /// # Errors
    ///
    /// None is known.
    pub async fn routes(&mut self, table: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let messages = self.route_messages(table).await?;

        Ok(messages.iter().filter_map(dst_of).collect())
    }

    /// Removes all routes of `table`.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::PermissionDenied`].
    pub async fn flush_table(&mut self, table: u32) -> Result<(), NetlinkError> {
        for message in self.route_messages(table).await? {
            self.delete_route_message(message).await?;
        }

        Ok(())
    }

    /// Adds a rule for both IP versions where it is missing, and returns for which it is in force.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::PermissionDenied`].
    pub async fn add_rule(&mut self, rule: &RuleSpec) -> Result<Families, NetlinkError> {
        let add = async |family| {
            let mut request = self.handle.rule().add();
            *request.message_mut() = rule_message(rule, family);
            match request.execute().await {
                Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(true),
                Err(error) if family == AddressFamily::Inet6 && means_no_ipv6(errno(&error)) => {
                    Ok(false)
                }
                result => result
                    .map(|()| true)
                    .map_err(|error| NetlinkError::from_reply("add a routing rule", error)),
            }
        };

        Ok(Families {
            v4: add(AddressFamily::Inet).await?,
            v6: add(AddressFamily::Inet6).await?,
        })
    }

    /// Adds a rule for what comes from some addresses; no error if it is there, or about IPv6 on a machine without.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::PermissionDenied`].
    pub async fn add_source_rule(&mut self, rule: &SourceRuleSpec) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = source_rule_message(rule);

        match request.execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            Err(error) if rule.from.addr().is_ipv6() && means_no_ipv6(errno(&error)) => Ok(()),
            result => result.map_err(|error| NetlinkError::from_reply("add a routing rule", error)),
        }
    }

    /// Removes a rule for both IP versions; no error where it isn't there.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::PermissionDenied`].
    pub async fn delete_rule(&mut self, rule: &RuleSpec) -> Result<(), NetlinkError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.rule().del(rule_message(rule, family));
            match request.execute().await {
                Err(error) if is_gone(errno(&error)) => {}
                result => result
                    .map_err(|error| NetlinkError::from_reply("remove a routing rule", error))?,
            }
        }

        Ok(())
    }

    async fn route_message(&mut self, route: &RouteSpec) -> Result<RouteMessage, NetlinkError> {
        let mixed = |via| NetlinkError::MixedFamilies {
            dst: route.dst,
            via,
        };
        let dst = route.dst.trunc();
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .table_id(route.table)
            .kind(match route.kind {
                RouteKind::Unicast => RouteType::Unicast,
                RouteKind::Prohibit => RouteType::Prohibit,
                RouteKind::Blackhole => RouteType::BlackHole,
            })
            .destination_prefix(dst.addr(), dst.prefix_len())
            .map_err(|_| mixed(dst.addr()))?;
        if let Some(via) = route.via {
            builder = builder.gateway(via).map_err(|_| mixed(via))?;
        }
        if let Some(dev) = &route.dev {
            builder = builder.output_interface(self.link_index(dev).await?);
        }

        Ok(builder.build())
    }

    async fn route_messages(&mut self, table: u32) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut messages = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let routes = self.handle.route().get(filter).execute();
            let routes: Vec<_> = match routes.try_collect().await {
                Err(error) if means_no_ipv6(errno(&error)) => continue,
                result => result.map_err(|error| NetlinkError::from_reply("list routes", error))?,
            };
            messages.extend(routes.into_iter().filter(|route| table_of(route) == table));
        }

        Ok(messages)
    }

    async fn delete_route_message(&mut self, message: RouteMessage) -> Result<(), NetlinkError> {
        match self.handle.route().del(message).execute().await {
            Err(error) if is_gone(errno(&error)) => Ok(()),
            result => result.map_err(|error| NetlinkError::from_reply("remove a route", error)),
        }
    }
}

/// Whether an error means that what is to be removed isn't there.
fn is_gone(errno: Option<i32>) -> bool {
    matches!(
        errno,
        Some(libc::ESRCH | libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    )
}

fn rule_message(rule: &RuleSpec, family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::FwMark(rule.unless_marked),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
    ];
    if rule.skips_defaults {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }

    message
}

fn source_rule_message(rule: &SourceRuleSpec) -> RuleMessage {
    let from = rule.from.trunc();
    let mut message = RuleMessage::default();
    message.header.family = match from {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.src_len = from.prefix_len();
    message.attributes = vec![
        RuleAttribute::Source(from.addr()),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
    ];

    message
}

fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Table(table) = attribute {
            Some(*table)
        } else {
            None
        }
    });

    attribute.unwrap_or_else(|| message.header.table.into())
}

/// Where a listed route leads; `None` for what is neither IPv4 nor IPv6.
fn dst_of(message: &RouteMessage) -> Option<IpNet> {
    let attribute = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(dst) = attribute {
            Some(dst)
        } else {
            None
        }
    });
    let family = message.header.address_family;
    let ip = match attribute {
        Some(RouteAddress::Inet(ip)) => IpAddr::from(*ip),
        Some(RouteAddress::Inet6(ip)) => IpAddr::from(*ip),
        // A default route is listed without a destination.
        None if family == AddressFamily::Inet => IpAddr::from([0; 4]),
        None if family == AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };

    IpNet::new(ip, message.header.destination_prefix_length).ok()
}
