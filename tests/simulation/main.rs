//! Whole brokers in a simulated world: `cargo xtask sim`, and for `BARNABAS_SIM_SECONDS` in every test run.
//!
//! `BARNABAS_SIM_STEPS` ends it with the world in which so many events have happened, however fast the machine is.
//! `BARNABAS_SIM_SEED` repeats one world; with `BARNABAS_SIM_TRACE` its events are printed as they
//! happen, and with `BARNABAS_SIM_LOG=debug` what its brokers log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails where it stands"
)]

mod scenarios;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use world::{Load, Outcome, Plan, World, faults, start_all};

/// How long the simulation goes on in a test run that says nothing else.
const SECONDS: u64 = 45;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn is_loud() -> bool {
    std::env::var_os("BARNABAS_SIM_TRACE").is_some()
}

fn print_logs_if_wanted() {
    if let Ok(level) = std::env::var("BARNABAS_SIM_LOG") {
        world::trace::print_logs(&level);
    }
}

/// A world of which only the seed is known.
async fn random_story(world: Arc<World>) {
    start_all(&world).await;
    let load = Load::start(&world).await;
    faults::make_trouble(&world).await;
    load.require_liveness(&world).await;
}

fn run_seed(seed: u64) -> Outcome {
    world::run(Plan::of_seed(seed), is_loud(), random_story)
}

/// Fails with all that is needed to see it again.
fn require_no_violation(seed: u64, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    for line in &outcome.recent {
        println!("{line}");
    }
    println!("\n{violation}\ncargo xtask sim --seed {seed}");
    panic!("seed {seed}: {violation}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let (first, second) = (run_seed(7), run_seed(7));
    assert_eq!((first.events, first.hash), (second.events, second.hash));
}

#[test]
fn no_world_breaks_an_invariant() {
    print_logs_if_wanted();
    if let Some(seed) = number("BARNABAS_SIM_SEED") {
        let outcome = run_seed(seed);
        println!("{:?}", Plan::of_seed(seed));
        require_no_violation(seed, &outcome);
        println!(
            "seed {seed}: {} events, hash {:016x}",
            outcome.events, outcome.hash
        );
        return;
    }
    // A test run tries the same seeds as the one before, so that what fails is due to what was changed. New ones are
    // for `cargo xtask sim`.
    let asked = number("BARNABAS_SIM_SECONDS");
    let seconds = asked.unwrap_or(SECONDS);
    let new = || asked.map_or(1, |_| rand::random::<u32>().into());
    let first = number("BARNABAS_SIM_FIRST").unwrap_or_else(new);
    let (start, mut events, mut seeds) = (Instant::now(), 0, 0);
    let mut simulated = Duration::ZERO;
    let steps = number("BARNABAS_SIM_STEPS").unwrap_or(u64::MAX);
    while events < steps && (seconds == 0 || start.elapsed() < Duration::from_secs(seconds)) {
        let seed = first + seeds;
        let outcome = run_seed(seed);
        events += outcome.events;
        seeds += 1;
        simulated += outcome.simulated;
        if seeds % 50 == 0 || seconds == 0 && seeds % 10 == 0 {
            println!("{seeds} seeds up to {seed}, {events} events");
        }
        require_no_violation(seed, &outcome);
    }
    println!(
        "simulated {events} events of {seeds} seeds from {first} in {} s; {} s went by in them",
        start.elapsed().as_secs(),
        simulated.as_secs()
    );
}
