//! The loop with a core that does next to nothing and devices in memory.

mod back_pressure;

mod errors;
mod fairness;
mod jobs;
mod packets;
mod properties;
mod rig;
mod test_core;

use std::time::Duration;

use connlib_os::fake::FakeUdp;
use connlib_wire::stun::Family;

use super::Inline;
use packets::*;
use rig::*;
use test_core::*;
