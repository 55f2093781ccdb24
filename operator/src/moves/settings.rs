//! How much may move at once, how fast, and when.

use std::time::Duration;

use barnabas_core::balance::{Limits, Settings};

/// What is done without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is begun; what runs finishes.
    Off,
    /// What would be done is told.
    DryRun,
    /// Only what is lost, drained or asked for.
    HealOnly,
    #[default]
    Full,
}

/// Every number of the balancer.
#[derive(Clone, Debug)]
pub struct MoverSettings {
    pub mode: Mode,
    pub planner: Settings,
    /// Moves at once into a broker, out of one, and altogether; other tools' count as well.
    pub moves_in_max: usize,
    pub moves_out_max: usize,
    pub moves_max: usize,
    /// Leadership changes at once, altogether and per broker.
    pub elections_max: usize,
    pub elections_per_broker_max: usize,
    /// Bytes per second and direction of a broker, for moves that are no repair.
    pub throttle: u64,
    /// The same for repair.
    pub heal_throttle: u64,
    pub throttle_min: u64,
    /// How often throttles adapt to how brokers fare.
    pub throttle_interval: Duration,
    /// A move without progress for so long is tried elsewhere.
    pub stall_after: Duration,
    /// A partition is not moved for balance again before.
    pub cool_down: Duration,
    /// How many looks in a row, so far apart, have to find imbalance before anything moves for it.
    pub balance_windows: u32,
    pub balance_window: Duration,
    /// Rest between two rounds of balancing.
    pub balance_pause: Duration,
    pub balance_limits: Limits,
    /// Leaders are put back when so many percent have been elsewhere for so long.
    pub imbalance_percent: u64,
    pub imbalance_for: Duration,
    /// Between two looks while something moves, and while nothing does.
    pub busy_interval: Duration,
    pub idle_interval: Duration,
    /// How often everything is asked for anew.
    pub resync: Duration,
    /// How old a reassignment's end must be before its partition is planned with: metadata may lag behind.
    pub settle: Duration,
}

const MEBIBYTE: u64 = 1 << 20;

impl Default for MoverSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            planner: Settings::default(),
            moves_in_max: 5,
            moves_out_max: 5,
            moves_max: 50,
            elections_max: 100,
            elections_per_broker_max: 25,
            throttle: 50 * MEBIBYTE,
            heal_throttle: 200 * MEBIBYTE,
            throttle_min: 5 * MEBIBYTE,
            throttle_interval: Duration::from_secs(30),
            stall_after: Duration::from_secs(3 * 60),
            cool_down: Duration::from_secs(3600),
            balance_windows: 3,
            balance_window: Duration::from_secs(60),
            balance_pause: Duration::from_secs(10 * 60),
            balance_limits: Limits {
                moves: 1000,
                bytes: 1 << 40,
            },
            imbalance_percent: 10,
            imbalance_for: Duration::from_secs(5 * 60),
            busy_interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(5),
            resync: Duration::from_secs(2 * 60),
            settle: Duration::from_secs(5),
        }
    }
}

impl MoverSettings {
    /// For a person who waits for it: balances at once, and again as long as there is something to do.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.balance_windows = 1;
        self.balance_window = Duration::ZERO;
        self.balance_pause = Duration::ZERO;
        self.imbalance_percent = 0;
        self.imbalance_for = Duration::ZERO;
        self
    }
}
