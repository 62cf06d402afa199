//! The scenario engine: any bytes are a world, and what must never be is not in it.

use connlib_sim::{Scenario, World};

/// Makes a world of the bytes, and runs it.
///
/// Its text must describe the same world. What happens in it must violate no oracle of the simulator.
pub fn scenarios(bytes: &[u8]) {
    let scenario = Scenario::from_bytes(bytes);
    let text = scenario.to_string();
    let read = Scenario::parse(&text).expect("what we print can be read");
    assert_eq!(read, scenario, "{text}");

    if let Err(failure) = World::new(scenario).run() {
        panic!("{failure}");
    }
}
