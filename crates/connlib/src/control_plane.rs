//! The thread with a runtime: the portal, the kernel's configuration, local sockets, and whoever holds the handle.
//!
//! One for clients and gateways alike; what differs between them is a [`Role`].

mod forwarding;
mod host_names;
mod interface;
mod load;
mod notices;
mod roles;
mod surroundings;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connlib_os::clock::Clock;
use connlib_os::tun::TunDevice;
use connlib_tunnel::client::NameRecord;
use connlib_tunnel::dns::Resolvers;
use connlib_tunnel::{PortalState, Status};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::builder::portal_url;
use crate::data_plane::{NodeHandle, Order, Outputs, Sockets, Stopped, spawn_node};
use crate::error::{Error, Misconfigured};
use crate::event_loop::{Command, Core, Output, Stats};
use crate::exchanges::Exchanges;
use crate::handle::{Answer, Control, Handle, Request, pair};
use crate::portal_view::{PortalReport, PortalView};
use crate::process::{host_name, run_to_end, runtime, seed};
use crate::status::StatusSocket;
use crate::tls::ClientCertificate;
use crate::uplink::{
    CHANNEL_SIZE, FromUplink, Introduction, Proxy, ToUplink, Uplink, UplinkConfig,
};

use forwarding::Forwarding;
pub use forwarding::Masquerade;
pub use host_names::DnsControl;
use host_names::{Heard, HostNames, HostNamesConfig};
use interface::Interface;
use load::Load;
use notices::{Notice, Notices, Sleep};
pub(crate) use roles::{OfClient, OfGateway, Role};
use surroundings::Change;

/// What keeps our own traffic out of our own tunnel (client.md §12.2).
const MARK: u32 = 0xfd00_2021;

/// The port that firewalls are told of (io.md C1).
const PORT: u16 = 52_625;

/// The device's usual name (cli.md).
const TUN_NAME: &str = "tun-firezone";

/// How long a proper end of the portal's connection may take.
const PART_WITHIN: Duration = Duration::from_secs(1);

/// What a client or gateway is told before it starts.
#[derive(Default)]
pub(crate) struct NodeConfig {
    pub(crate) api_url: Option<String>,
    pub(crate) token: Option<connlib_wire::secret::Secret>,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) tun_name: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) certificate: Option<ClientCertificate>,
    /// Where the portal asks for certificates, if not where it is.
    pub(crate) mtls_host: Option<String>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) max_partition_time: Option<Duration>,
    pub(crate) socket: Option<PathBuf>,
    /// Whether a client uses the Internet resource.
    pub(crate) internet: bool,
    /// Under which addresses packets leave a gateway's machine.
    pub(crate) masquerade: Masquerade,
    /// How programs here are made to ask a client for names.
    pub(crate) dns: DnsControl,
    /// The file that stands for `/etc/resolv.conf`.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// What earlier clients have given addresses to.
    pub(crate) names: Vec<NameRecord>,
    pub(crate) keep_names: Option<KeepNames>,
}

/// Whoever keeps the names that are given addresses.
pub(crate) type KeepNames = Box<dyn FnMut(&[NameRecord]) + Send>;

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("api_url", &self.api_url)
            .field("id", &self.id)
            .field("name", &self.name)
            .field("tun_name", &self.tun_name)
            .finish_non_exhaustive()
    }
}

/// Starts a client or a gateway: its data plane, its TUN device, its control plane.
pub(crate) fn start<R: Role>(config: NodeConfig) -> Result<Handle, Error> {
    let api_url = config.api_url.ok_or(Misconfigured::Missing {
        what: "the portal's address",
        next_step: "give it by --api-url",
    })?;
    let url = portal_url(
        &api_url,
        config.token.as_ref(),
        config.certificate.as_ref(),
        config.mtls_host.as_deref(),
    )?;
    let tun_name = config.tun_name.unwrap_or_else(|| TUN_NAME.to_owned());
    // Before anything else is touched: without the right to do this there is nothing to start.
    let device = TunDevice::create(&tun_name)?;

    let clock = Clock::new();
    let mut core = R::core(clock.now(), seed()?, clock.unix());
    core.want_internet(clock.now(), config.internet);
    R::restore_names(&mut core, &config.names);
    let key = R::public_key(&core);
    let sockets = Sockets {
        port: PORT,
        mark: Some(MARK),
    };
    let (node, outputs) = spawn_node(R::DATA_THREAD, core, clock, sockets)?;

    let (send_uplink, to_uplink) = mpsc::channel(CHANNEL_SIZE);
    let (from_uplink, uplink) = mpsc::channel(CHANNEL_SIZE);
    let uplink_config = UplinkConfig {
        url,
        token: config.token,
        certificate: config.certificate,
        proxy: config.proxy,
        introduction: Introduction {
            external_id: config.id,
            name: config.name.or_else(host_name),
            ..Introduction::default()
        },
        join: serde_json::value::RawValue::NULL.to_owned(),
        max_partition_time: config.max_partition_time,
        seed: seed()?,
    };
    let exchanges = Exchanges::new(Some(MARK), config.ca_file.as_deref())?;
    let connection = Uplink::<R::Protocol>::new(
        uplink_config,
        Some(MARK),
        config.ca_file.as_deref(),
        Some(exchanges.bootstrap()),
        to_uplink,
        from_uplink,
    )?;
    let runtime = runtime()?;
    let status = StatusSocket::bind(&runtime, config.socket, R::NAME)?;
    let (handle, control) = pair();
    let progress = control.progress.clone();

    let host_names = HostNamesConfig {
        control: R::dns(config.dns),
        resolv_conf: config.resolv_conf,
    };
    let plane = ControlPlane::<R> {
        node,
        outputs,
        uplink: send_uplink,
        clock,
        forwarding: R::FORWARDS.then(|| Forwarding::new(tun_name.clone(), config.masquerade)),
        interface: Interface::new(tun_name, R::QUEUE),
        exchanges,
        keep_names: config.keep_names,
        device: Some(device),
        control,
        reports: VecDeque::new(),
    };
    progress.run_on_thread(R::CONTROL_THREAD, move || {
        run_to_end(runtime, async move {
            let connection = tokio::spawn(connection.run(clock));
            let result = plane.run(uplink, status, key, host_names).await;
            // Its channels are closed by now; it only has to say so to the portal.
            drop(tokio::time::timeout(PART_WITHIN, connection).await);

            result
        })
    })?;

    Ok(handle)
}

struct ControlPlane<R: Role> {
    node: NodeHandle<R::Core>,
    outputs: Outputs<R::Core>,
    uplink: mpsc::Sender<ToUplink<<R::Core as Core>::ToPortal>>,
    clock: Clock,
    interface: Interface,
    /// What a gateway's machine does for its clients.
    forwarding: Option<Forwarding>,
    /// Questions on their way to name servers.
    exchanges: Exchanges,
    keep_names: Option<KeepNames>,
    /// Until it is configured and handed to the data plane.
    device: Option<TunDevice>,
    control: Control,
    /// Who waits for a report or an explanation, in the order they asked.
    reports: VecDeque<Answer>,
}

/// What `connlib status` shows of a client or gateway.
#[derive(Debug, Serialize)]
struct Report {
    role: &'static str,
    #[serde(flatten)]
    portal: PortalReport,
    is_ready: bool,
    interface: String,
    #[serde(flatten)]
    status: Status,
    resident_bytes: Option<u64>,
    dropped_datagrams: u64,
    load: Load,
}

impl<R: Role> ControlPlane<R> {
    async fn run(
        mut self,
        mut uplink: mpsc::Receiver<FromUplink<<R::Core as Core>::FromPortal>>,
        mut status: Option<StatusSocket>,
        key: connlib_wire::key::PublicKey,
        host_names: HostNamesConfig,
    ) -> Result<(), Error> {
        let started = HostNames::start(host_names, self.interface.name()).await;
        let (mut names, found) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = self.node.order(Order::Stop).await;
                return self.node.join().map_err(Error::from).and(Err(error));
            }
        };
        // Before the portal says anything: the first settings that are wanted are to be whole, for then we say to be ready.
        let mut result = match found {
            Some(found) => self.handle_resolvers(found).await,
            None => Ok(()),
        };
        self.tell_uplink(ToUplink::Connect(Some(key)));
        let mut notices = Notices::start(self.interface.name()).await;
        let mut is_stopping = false;
        loop {
            let step = tokio::select! {
                output = self.outputs.recv() => match output {
                    Some(output) => self.handle_output(output, &names).await,
                    // The data plane has ended; it says why when it is joined.
                    None => break,
                },
                event = uplink.recv() => match event {
                    Some(event) => {
                        if let FromUplink::Message(message) = &event
                            && let Some(relays) = R::relays(message)
                        {
                            notices.learn(relays).await;
                        }
                        self.handle_uplink(event).await
                    }
                    None => Ok(()),
                },
                (id, outcome) = self.exchanges.next() => {
                    self.order(Order::Command(Command::Exchanged(id, outcome))).await
                }
                heard = names.next() => match heard {
                    Heard::Resolvers(found) => self.handle_resolvers(found).await,
                    Heard::Applied => {
                        self.note_ready();
                        Ok(())
                    }
                },
                notice = notices.next(), if !is_stopping => {
                    self.handle_notice(notice, &mut notices).await
                }
                request = self.control.requests.recv(), if !is_stopping => {
                    // Nobody holding the handle any longer asks for the same.
                    let request = request.unwrap_or(Request::Stop);
                    is_stopping = matches!(request, Request::Stop);
                    self.handle_request(request).await
                }
                asked = StatusSocket::next(&mut status) => self.handle_request(asked).await,
            };
            if let Err(error) = step {
                result = Err(error);
                break;
            }
        }

        // Goodbyes leave while the routes are still there.
        let stopped = self.node.order(Order::Stop).await;
        if stopped.is_ok() {
            while let Some(output) = self.outputs.recv().await {
                // Programs may know these addresses already.
                if let Output::Event(event) = output {
                    self.keep_names(&event);
                }
            }
        }
        names.stop().await;
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.tear_down().await;
        }
        self.interface.tear_down().await;
        let joined = self.node.join().map_err(Error::from);

        result.and(joined)
    }

    async fn handle_output(
        &mut self,
        output: Output<R::Core>,
        names: &HostNames,
    ) -> Result<(), Error> {
        match output {
            Output::Message(message) => self.tell_uplink(ToUplink::Message(message)),
            Output::Status(status, stats) => self.report(status, &stats),
            Output::Explained(explanations) => {
                if let Some(answer) = self.reports.pop_front() {
                    answer.give(serde_json::json!({"role": R::NAME, "packets": explanations}));
                }
            }
            Output::Exchange(exchange) => self.exchanges.start(exchange),
            Output::Event(event) => {
                if let Some(wanted) = R::interface(&event) {
                    self.interface.set_up(&wanted).await?;
                    if let Some(forwarding) = &mut self.forwarding {
                        forwarding.set_up().await?;
                    }
                    names.want(wanted.names);
                    if let Some(device) = self.device.take() {
                        self.order(Order::Tun(device)).await?;
                    }
                }
                self.keep_names(&event);
                R::show(&event, &self.control.watched);
                if let Some(servers) = R::https_servers(&event) {
                    self.exchanges.get_ready_for(servers);
                }
                if let Some(key) = R::new_key(&event) {
                    self.tell_uplink(ToUplink::Connect(Some(key)));
                }
            }
        }

        Ok(())
    }

    /// Hands names that were given addresses to whoever keeps them.
    fn keep_names(&mut self, event: &<R::Core as Core>::Event) {
        let records = R::assigned_names(event);
        if let Some(keep) = self.keep_names.as_mut().filter(|_| !records.is_empty()) {
            keep(records);
        }
    }

    /// Packets go where they should, and programs ask us for names: that is to be known.
    fn note_ready(&self) {
        if !self.control.progress.is_ready() {
            tracing::info!(interface = %self.interface.name(), "Ready");
            self.control.progress.set_ready();
        }
    }

    /// The system would ask others than before.
    async fn handle_resolvers(&mut self, found: Resolvers) -> Result<(), Error> {
        tracing::debug!(servers = ?found.servers, "The system's name servers");
        self.exchanges.set_bootstrap(&found.servers);

        self.order(Order::Command(Command::Resolvers(found))).await
    }

    async fn handle_uplink(
        &mut self,
        event: FromUplink<<R::Core as Core>::FromPortal>,
    ) -> Result<(), Error> {
        let watched = &self.control.watched.portal;
        let now = self.wall_clock();
        let command = match event {
            FromUplink::Joined(generation) => {
                tracing::info!("Joined the portal");
                watched.send_modify(|view| view.joined(generation));
                Command::PortalState(PortalState::Joined)
            }
            FromUplink::Away => {
                watched.send_modify(PortalView::left);
                Command::PortalState(PortalState::Away)
            }
            FromUplink::Failing(error, after) => {
                watched.send_modify(|view| view.failed(now, error, after));
                return Ok(());
            }
            FromUplink::Message(message) => {
                if let Some(refusal) = R::refusal(&message) {
                    watched.send_modify(|view| view.refused(now, refusal));
                }
                Command::Portal(message)
            }
            FromUplink::Failed(error) => return Err(error.into()),
        };

        self.order(Order::Command(command)).await
    }

    async fn handle_notice(&mut self, notice: Notice, notices: &mut Notices) -> Result<(), Error> {
        match notice {
            Notice::Network => match notices.judge().await {
                Change::Moved => {
                    tracing::info!("The network changed");
                    self.adapt().await
                }
                Change::Cut => {
                    tracing::info!("The network is gone");
                    Ok(())
                }
                Change::Hint => {
                    self.tell_uplink(ToUplink::CheckSource);
                    Ok(())
                }
            },
            Notice::Woke(Sleep::Long) => {
                tracing::info!("The machine woke up");
                self.adapt().await
            }
            Notice::Woke(Sleep::Short) => {
                self.node.nudge();
                Ok(())
            }
        }
    }

    /// Lets everything find its way anew; what still works goes on.
    async fn adapt(&mut self) -> Result<(), Error> {
        self.exchanges.reset();
        // First, so that it knows before anything is to be said about the new network.
        self.tell_uplink(ToUplink::Check);

        self.order(Order::Adapt).await
    }

    async fn handle_request(&mut self, request: Request) -> Result<(), Error> {
        match request {
            Request::Report(answer) => {
                self.reports.push_back(answer);
                self.order(Order::Command(Command::Status)).await
            }
            Request::Explain(question, answer) => {
                self.reports.push_back(answer);
                self.order(Order::Command(Command::Explain(question))).await
            }
            Request::Reset => {
                tracing::info!("The network changed");
                self.exchanges.reset();
                // The portal hears of the new key before it hears of anything that belongs to it.
                self.tell_uplink(ToUplink::Disconnect);
                self.control.watched.portal.send_modify(PortalView::left);
                let away = Command::PortalState(PortalState::Away);
                self.order(Order::Command(away)).await?;
                self.order(Order::Rebind).await
            }
            Request::Internet(is_wanted) => {
                self.order(Order::Command(Command::Internet(is_wanted)))
                    .await
            }
            Request::Stop => {
                self.tell_uplink(ToUplink::Disconnect);
                self.order(Order::Stop).await
            }
        }
    }

    fn report(&mut self, status: Status, stats: &Stats) {
        let Some(answer) = self.reports.pop_front() else {
            return;
        };
        let report = Report {
            role: R::NAME,
            portal: self
                .control
                .watched
                .portal
                .borrow()
                .report(self.wall_clock()),
            is_ready: self.control.progress.is_ready(),
            interface: self.interface.name().to_owned(),
            status,
            resident_bytes: connlib_os::process::resident_bytes().ok(),
            dropped_datagrams: stats.dropped_total(),
            load: Load::from(stats),
        };
        answer.give(serde_json::to_value(report).unwrap_or_default());
    }

    fn wall_clock(&self) -> SystemTime {
        UNIX_EPOCH + self.clock.unix()
    }

    /// What the data plane can't take any more it says itself when it is joined.
    async fn order(&self, order: Order<R::Core>) -> Result<(), Error> {
        if let Err(Stopped) = self.node.order(order).await {
            tracing::debug!("The data plane has ended");
        }

        Ok(())
    }

    /// Never waits: the uplink may be waiting for us.
    fn tell_uplink(&self, message: ToUplink<<R::Core as Core>::ToPortal>) {
        if let Err(error) = self.uplink.try_send(message) {
            tracing::debug!(%error, "The portal is not told");
        }
    }
}
