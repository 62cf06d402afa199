//! The ways out of this machine, and notice that they may have changed.

use std::error::Error;
use std::net::IpAddr;

/// The way that packets to some destination leave by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Way {
    /// The address that the system sends from unless it is told another one.
    pub source: IpAddr,
    /// The number of the interface.
    pub interface: u32,
    /// The router that takes them, if the destination is not on the link.
    pub router: Option<IpAddr>,
}

/// The network that this machine is in.
pub trait Network {
    /// Why it can't be asked any more.
    type Error: Error + Send + Sync + 'static;

    /// Waits until interfaces, addresses, routes or rules have changed, and then until a burst of changes is over, or has
    /// lasted for too long. It says nothing about what the change means; ask for [ways](Self::way_to).
    ///
    /// Dropping the future loses no change.
    ///
    /// # Errors
    ///
    /// There won't be any notice any more.
    fn changed(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The way to `destination` now; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The system doesn't say.
    fn way_to(
        &mut self,
        destination: IpAddr,
    ) -> impl Future<Output = Result<Option<Way>, Self::Error>> + Send;
}
