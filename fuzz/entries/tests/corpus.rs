//! Every target over its committed corpus, and over mutations of it that are the same each time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use connlib_fuzz_entries::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The longest input that is mutated, in bytes.
const MAX_LEN: usize = 4_096;

#[test]
fn every_target_takes_its_corpus() {
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "`{}` has no corpus", target.name);
        for (path, input) in corpus {
            run(target, &input, &path.display().to_string());
        }
    }
}

#[test]
fn every_target_takes_mutations_of_its_corpus() {
    for target in TARGETS {
        let mut seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
        seeds.push(vec![]);
        let mut random = StdRng::seed_from_u64(4);
        for number in 0..target.mutations {
            let input = mutated(&seeds, &mut random);
            run(target, &input, &format!("mutation {number}"));
        }
    }
}

#[test]
fn every_target_has_a_program_and_no_corpus_is_left_over() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert!(names.is_sorted());

    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &names {
        let program = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&program), "Cargo.toml lacks {program}");
        let program = fs::read_to_string(root().join(program)).unwrap();
        assert!(program.contains(&format!("connlib_fuzz_entries::{name}(")));
    }
    for entry in fs::read_dir(root().join("corpus")).unwrap() {
        let folder = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&folder.as_str()), "no target is `{folder}`");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The committed inputs of a target, by name.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();

    paths
        .into_iter()
        .map(|path| {
            let input = fs::read(&path).unwrap();
            (path, input)
        })
        .collect()
}

/// A few changes to one of `seeds`: bits, bytes, stretches left out, doubled, or taken from another.
fn mutated(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 64));
        match random.random_range(0..6) {
            0 => input.insert(at, random.random()),
            1 => drop(input.drain(at..end)),
            2 => {
                let stretch = input[at..end].to_vec();
                input.splice(at..at, stretch);
            }
            3 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                let stretch = other[from..other.len().min(from + 64)].to_vec();
                input.splice(at..end, stretch);
            }
            4 => input[at..end]
                .iter_mut()
                .for_each(|byte| *byte = random.random()),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    input.truncate(MAX_LEN);

    input
}

fn run(target: &Target, input: &[u8], what: &str) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(
        outcome.is_ok(),
        "`{}` failed on {what}: {input:02x?}",
        target.name
    );
}
