//! The loop with a core that does next to nothing and devices in memory.

mod back_pressure;

mod errors;
mod fairness;
mod jobs;
mod packets;
mod properties;
mod rig;
mod starvation;
mod test_core;

use std::time::{Duration, Instant};

use connlib_os::fake::FakeUdp;
use connlib_wire::stun::Family;

use super::{DropReason, Inline, Wait, Watched};
use packets::*;
pub(super) use rig::Random;
use rig::*;
pub(super) use starvation::seeds;
use test_core::*;
