//! What is measured of a pair of networks, and the table of it.

use std::fmt;
use std::time::Duration;

use crate::probe::first_reply;
use crate::tools::say;
use crate::world::World;

/// Whatever is direct is so by then, and what is not then counts as relayed.
const SOON: Duration = Duration::from_secs(5);

/// All rows of a test; printed in the end, also when it fails.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    client: String,
    gateway: String,
    path: String,
    first_byte: Option<Duration>,
    direct: Option<Duration>,
}

impl Table {
    /// Sends a first packet, waits, and says whether the path became what it should be, in time.
    pub(crate) fn measure(
        &mut self,
        [client, gateway]: [&str; 2],
        world: &World,
        expected: &str,
    ) -> Result<(), String> {
        // Nobody is to wait for addresses that a machine knows which has been up for a while.
        world.wait_relays("gateway");
        assert!(world.path().is_none(), "connected before anything was sent");
        let began_at = world.clock.now();
        let first_byte = first_reply(world.network.namespace("client"), 2 * SOON);
        let left = (began_at + SOON).saturating_duration_since(world.clock.now());
        let direct = world
            .wait_path("direct", left)
            .map(|path| (world.clock.now() - path.age).saturating_duration_since(began_at));
        // It carries, and the other end, which hears of it a moment later, has chosen the same kind.
        let goes_on = first_reply(world.network.namespace("client"), SOON).is_some();
        let agrees = |world: &World| {
            let path = &world.status("gateway")["peers"][0]["path"];
            (*path == expected).then_some(())
        };
        let agrees = world.wait_for(SOON, agrees).is_some();
        let path = world.path().map_or_else(|| "none".into(), |path| path.kind);
        let row = Row {
            client: client.into(),
            gateway: gateway.into(),
            path: path.clone(),
            first_byte,
            direct,
        };
        let said = row.to_string();
        self.0.push(row);
        let is_soon = |time: Option<Duration>| time.is_some_and(|time| time <= SOON);
        let holds = path == expected
            && goes_on
            && agrees
            && is_soon(first_byte)
            && (expected != "direct" || is_soon(direct));

        match holds {
            true => Ok(()),
            false => Err(format!(
                "{said}: should be {expected}; {}; {}",
                world.status("client"),
                world.status("gateway"),
            )),
        }
    }

    /// How many rows have such a path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.0.iter().filter(|row| row.path == path).count()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        say(&self.to_string());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<34} {:<34} {:<8} {:>13} {:>9}",
            "client", "gateway", "path", "first byte ms", "direct ms"
        )?;

        self.0.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Option<Duration>| {
            time.map_or_else(|| "–".into(), |time| time.as_millis().to_string())
        };

        write!(
            f,
            "{:<34} {:<34} {:<8} {:>13} {:>9}",
            self.client,
            self.gateway,
            self.path,
            millis(self.first_byte),
            millis(self.direct),
        )
    }
}
