//! The loop with a core that does next to nothing and devices in memory.
//!
//! Where each number of io.md §1.9 and §9 is tested, as far as it is the loop's:
//!
//! | number | test |
//! |---|---|
//! | defect 1 | `fairness::a_deadline_that_a_command_brought_about_is_told_without_any_io` |
//! | defect 2 | `seed_defects::every_error_of_a_turn_is_told_whatever_comes_first`, `errors::a_tun_that_is_gone_…` |
//! | defect 3 | `seed_defects::an_error_of_one_family_costs_the_other_nothing_…` |
//! | defect 4 | `seed_defects::a_turn_takes_many_commands_and_many_packets` |
//! | defect 5 | `back_pressure::a_stuck_ipv6_does_not_block_ipv4`, `…::a_full_socket_holds_up_another_family_not_for_ever`, `seed_defects::a_slow_ipv6_…` |
//! | defect 6 | `seed_defects::a_packet_that_goes_nowhere_does_not_run_the_timer` |
//! | V12 | `seed_defects::a_kernel_that_takes_ten_of_32_datagrams_…`, `back_pressure::partial_accepts_…` |
//! | V13 | `seed_defects::an_io_error_in_the_middle_of_a_train_repeats_nothing`; splitting anew is the socket's |
//! | V14, V15, V16 | `seed_defects::a_deadline_in_the_past_…`, `…::a_timer_that_has_fired_…`, `…::a_deadline_moves_freely_…` |
//! | starvation | `starvation`, `fairness` |
//! | error in mid-batch | `errors` |
//! | fatal behind ignorable | defect 2 |
//! | order of what waits and what doesn't (P8) | `runs::runs_wait_behind_what_waits_already_…`, `properties` |
//! | reset while sends are in flight | `bounds::a_reset_while_sends_are_under_way_…` |
//! | flush pending on TUN does not lose UDP | `back_pressure::a_full_tun_does_not_block_the_sockets` |
//! | unset TUN does not block sockets | `bounds::a_tun_that_has_yet_to_come_…` |
//! | send not hung on ENOBUFS | `errors::no_buffers_is_tried_again_by_a_deadline_and_not_for_ever` |
//! | pools flat | `bounds::memory_comes_back_whatever_becomes_of_the_packets` |
//! | pending without waker, busy guard | `starvation` (`check_wait`), `fairness::a_core_that_is_always_due_gets_pauses` |
//! | P1, P2 | `properties`, `fair::tests::properties`, `jobs` |
//! | P6 | `starvation`, `seed_defects::sources_that_are_always_ready_…` |
//! | P7 | `bounds::what_waits_is_bounded_while_every_device_stands_still`, `fair::tests` |
//! | P10 | every test: the core checks it |

mod back_pressure;
mod bounds;

mod errors;
mod fairness;
mod jobs;
mod overtaking;
mod packets;
mod properties;
#[cfg(feature = "net")]
mod real_roles;
mod rig;
mod runs;
mod seed_defects;
mod starvation;
mod test_core;
mod test_job;

use std::time::{Duration, Instant};

use connlib_os::fake::FakeUdp;
use connlib_wire::stun::Family;

use super::{DropReason, Inline, Wait, Watched, Workers as _};
use packets::*;
pub(super) use rig::Random;
use rig::*;
pub(super) use starvation::seeds;
use test_core::*;
use test_job::*;
