//! Worlds with a name: what was found by chance stays found.

use super::run_seed;

/// Seeds that broke an invariant once, and what was wrong. A change of the world changes what happens in them, so
/// that what can be said in fewer words has a test of its own.
const FOUND: [(u64, &str); 2] = [
    (
        9,
        "a torn partition.metadata kept a log directory from being used",
    ),
    (
        50,
        "a leader epoch was believed whose start offset had been cut",
    ),
];

#[test]
fn seeds_that_were_found_stay_well() {
    for (seed, was) in FOUND {
        println!("{seed}: {was}");
        super::require_no_violation(seed, &run_seed(seed));
    }
}
