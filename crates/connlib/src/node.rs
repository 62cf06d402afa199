//! A state machine of the caller's own on the data plane: a thread with the event loop, two UDP sockets and a TUN device.
//!
//! This is what a client and a gateway run on, without their portal. It is for programs that bring a
//! [`Core`] of another protocol; the example `wireguard_peer` is one. What a core needs besides (a name for the device,
//! addresses, routes) is the caller's to arrange.
//!
//! ```text
//!   Node::spawn ──► thread: event loop ◄──► UDP IPv4, UDP IPv6, TUN
//!   command     ──►            │
//!   next_output ◄──────────────┘
//! ```

use std::fmt;

use connlib_os::clock::Clock;
use connlib_os::tun::TunDevice;

use crate::data_plane::{NodeHandle, Order, Outputs, Sockets, spawn_node};
use crate::error::Error;
use crate::event_loop::{Command, Core, Output};

/// How a node's thread and sockets are set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The thread's name; Linux shows 15 characters of it.
    pub name: &'a str,
    /// The UDP port of both sockets. If it is taken, or 0, any other one is used.
    pub port: u16,
    /// The firewall mark of what the sockets send, so that rules can keep it out of the tunnel.
    pub mark: Option<u32>,
}

/// A core at work, until it is [stopped](Self::stop). The thread of one that is dropped ends when next it has something to
/// do.
pub struct Node<C: Core> {
    handle: NodeHandle<C>,
    outputs: Outputs<C>,
}

impl<C: Core> Node<C> {
    /// Binds the sockets and starts the thread; from then on packets flow.
    ///
    /// `clock` is the one whose time the core was created at. A machine that lacks one IP version goes on with the other.
    ///
    /// # Errors
    ///
    /// [`Error::Os`]: no socket can be bound, or there is no thread or descriptor left. [`Error::Other`]: the thread ended
    /// at once.
    pub async fn spawn(
        core: C,
        clock: Clock,
        tun: TunDevice,
        settings: Settings<'_>,
    ) -> Result<Self, Error>
    where
        C: Send + 'static,
        C::FromPortal: Send,
        C::ToPortal: Send,
        C::Event: Send,
        C::Status: Send,
        C::Packets: Send,
        C::Lane: Send,
        C::Job: Send,
    {
        let Settings { name, port, mark } = settings;
        let (handle, outputs) = spawn_node(name, core, clock, Sockets { port, mark })?;
        if handle.order(Order::Tun(tun)).await.is_err() {
            drop(outputs);
            handle.join()?;
            return Err(Error::Other(crate::error::Failed::Crashed));
        }

        Ok(Self { handle, outputs })
    }

    /// Hands the loop a command, waiting while too many wait already. After the thread has ended it goes nowhere.
    pub async fn command(&self, command: Command<C::FromPortal>) {
        let _ = self.handle.order(Order::Command(command)).await;
    }

    /// The next output; `None` once the thread has ended. Outputs that nobody takes wait, and hold up the core's later
    /// ones.
    pub async fn next_output(&mut self) -> Option<Output<C>> {
        self.outputs.recv().await
    }

    /// Shuts the core down, gives what waits a second to leave, and waits for the end of the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Other`]: the thread had ended by itself, for this reason.
    pub async fn stop(mut self) -> Result<(), Error> {
        // It fails if the thread has ended.
        let _ = self.handle.order(Order::Stop).await;
        while self.outputs.recv().await.is_some() {}

        Ok(self.handle.join()?)
    }
}

impl<C: Core> fmt::Debug for Node<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}
