//! Many worlds on all processors, and what is left of one that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::excuse::Excuse;
use crate::limits::Kind;
use crate::report::{Failure, Judged, Report};
use crate::scenario::Scenario;
use crate::shrink::shrink;
use crate::world::World;

/// What many worlds did.
#[derive(Debug, Default)]
pub struct Campaign {
    /// How many there were.
    pub worlds: u64,
    /// Datagrams that left any host.
    pub datagrams: u64,
    /// How long disturbances lasted, by kind.
    pub measured: BTreeMap<Kind, Vec<Duration>>,
    /// How much was judged.
    pub judged: Judged,
    /// How many requests each excuse was there for.
    pub excused: BTreeMap<Excuse, u64>,
}

impl Campaign {
    /// Runs the worlds of `count` seeds from `first` on.
    ///
    /// # Errors
    ///
    /// A failure, made as small as it could be.
    pub fn seeds(first: u64, count: u64) -> Result<Self, Failure> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicU64::new(0);
        let has_failed = AtomicBool::new(false);
        let outcome = Mutex::new((Self::default(), None));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut own = Self::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || has_failed.load(Ordering::Relaxed) {
                            break;
                        }
                        match crate::run(Scenario::from_seed(first.wrapping_add(number))) {
                            Ok(report) => own.add(&report),
                            Err(failure) => {
                                has_failed.store(true, Ordering::Relaxed);
                                lock(&outcome).1.get_or_insert(failure);
                            }
                        }
                    }
                    lock(&outcome).0.merge(own);
                });
            }
        });
        let (campaign, failure) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);

        match failure {
            Some(failure) => Err(failure),
            None => Ok(campaign),
        }
    }

    /// Adds what a world did.
    pub fn add(&mut self, report: &Report) {
        self.worlds += 1;
        self.datagrams += report.datagrams;
        self.judged.add(&report.judged);
        self.excuse(&report.excused);
        for (kind, took) in &report.measured {
            self.measured.entry(*kind).or_default().push(*took);
        }
    }

    fn excuse(&mut self, excused: &BTreeMap<Excuse, u64>) {
        for (excuse, count) in excused {
            *self.excused.entry(*excuse).or_default() += count;
        }
    }

    /// Of a million requests, how many each excuse was there for.
    pub fn excused_per_million(&self) -> impl Iterator<Item = (Excuse, u64)> {
        let requests = self.judged.requests.max(1);
        let excused = self.excused.iter();

        excused.map(move |(excuse, count)| (*excuse, count * 1_000_000 / requests))
    }

    fn merge(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.datagrams += other.datagrams;
        self.judged.add(&other.judged);
        self.excuse(&other.excused);
        for (kind, took) in other.measured {
            self.measured.entry(kind).or_default().extend(took);
        }
    }
}

/// A table of how long disturbances lasted.
impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            worlds, datagrams, ..
        } = self;
        writeln!(f, "{worlds} worlds, {datagrams} datagrams")?;
        let Judged {
            requests,
            probes,
            first_replies,
            fresh,
            refusals,
            questions,
            outside,
            at_sites,
            prohibited,
            unreachable,
            overlapping,
            internet,
            forged,
            errors,
            controls,
            slowest_control,
            relayed,
            strange,
        } = self.judged;
        writeln!(
            f,
            "names: {probes} requests, {first_replies} first replies, {fresh} fresh, {refusals} refusals, {questions} questions; \
             known: {outside} outside, {at_sites} at sites"
        )?;
        writeln!(
            f,
            "decisions: {overlapping} among several, {internet} to the Internet, {prohibited} prohibited, {unreachable} unreachable, \
             {forged} forged, {errors} errors"
        )?;
        writeln!(
            f,
            "relays: {controls} requests answered, the slowest after {slowest_control:?}, {relayed} datagrams of data, \
             {strange} of strangers"
        )?;
        write!(f, "{requests} requests, excused of a million:")?;
        for (excuse, count) in self.excused_per_million() {
            write!(f, " {excuse} {count},")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:16} {:>6} {:>9} {:>9} {:>9} {:>9}",
            "ms", "seen", "p50", "p95", "max", "goal"
        )?;
        for (kind, took) in &self.measured {
            let mut took = took.clone();
            took.sort_unstable();
            let quantile = |percent: usize| {
                let at = took.get((took.len() - 1) * percent / 100);
                at.copied().unwrap_or_default().as_millis()
            };
            let [p50, p95, max] = [50, 95, 100].map(quantile);
            let goal = kind.limit().goal.as_millis();
            writeln!(
                f,
                "{kind:16} {:>6} {p50:>9} {p95:>9} {max:>9} {goal:>9}",
                took.len()
            )?;
        }

        Ok(())
    }
}

/// Makes a failure small, writes down how to see it again, and says so.
pub fn save(failure: Failure, folder: &Path) -> String {
    let first = failure.to_string();
    let failure = shrink(failure);
    let stem = format!("{:x}", failure.scenario.seed);
    let text = folder.join(format!("{stem}.txt"));
    let mut said = format!("{first}\nmade smaller: {failure}\n");
    match write(&failure, folder, &text, &stem) {
        Ok(captures) => {
            let text = text.display();
            said += &format!("scenario: {text}\n");
            for capture in captures {
                said += &format!("capture:  {}\n", capture.display());
            }
            said += &format!(
                "again:    REPRO={text} cargo test --release -p connlib-sim --test seeds -- --nocapture\n"
            );
        }
        Err(error) => said += &format!("can't write to {}: {error}\n", folder.display()),
    }

    format!("{said}\n{}\n{}", failure.scenario, failure.lines.join("\n"))
}

fn write(
    failure: &Failure,
    folder: &Path,
    text: &Path,
    stem: &str,
) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let comment = format!("# {}\n", failure.what.replace('\n', " "));
    std::fs::write(text, format!("{comment}{}", failure.scenario))?;
    let (_, recorder) = World::new((*failure.scenario).clone())
        .recorded()
        .run_recorded();

    match recorder {
        Some(recorder) => recorder.write(folder, stem),
        None => Ok(Vec::new()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
