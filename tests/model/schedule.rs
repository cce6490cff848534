//! A schedule: everything that happens, made from its seed before any of it does.

use duelhub::event::{Outcome, Role, Viewer};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::devices::PLAYERS;
use crate::spec::{AUDIENCES, Spec, TYPES, user};

/// Duels of a schedule; most happens in the first.
pub(crate) const DUELS: usize = 2;

/// What happens, and under which bounds.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Events that a log holds.
    pub(crate) log_events_max: usize,
    /// Connections of one user in one duel.
    pub(crate) per_user_max: usize,
    pub(crate) steps: Vec<Step>,
}

/// One thing that happens. Duels and players are named by their index; what makes no sense by then is left out.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A push, whose answer is awaited at once or later.
    Push {
        duel: usize,
        spec: Spec,
        awaited: bool,
    },
    /// A push with the idempotency key of an earlier one, and its content or another.
    PushAgain {
        duel: usize,
        which: usize,
        nth: u64,
        same: bool,
    },
    /// Pushes whose answers are awaited later.
    Burst {
        duel: usize,
        specs: Vec<Spec>,
    },
    /// All answers are awaited, the first one first or last.
    Settle {
        backwards: bool,
    },
    Declare {
        duel: usize,
    },
    Close {
        duel: usize,
        outcome: Outcome,
        last: Option<Spec>,
        awaited: bool,
    },
    /// A player opens a connection, instead of the one they have.
    Connect {
        player: usize,
        resume: bool,
        /// Which of the tickets that the player has kept; `None`: a new one.
        from_pocket: Option<usize>,
    },
    /// A player loses their connection.
    Cut {
        player: usize,
    },
    /// A player reads so many batches; who never does falls behind.
    Read {
        player: usize,
        batches: usize,
    },
    /// A player reads until nothing is left that was answered.
    CatchUp {
        player: usize,
    },
    /// A player takes their position from a pong.
    Ping {
        player: usize,
    },
    Ack {
        player: usize,
    },
    /// A player gets a ticket and keeps it for later.
    Pocket {
        player: usize,
    },
    /// A player uses the ticket again by which they came: a resume ticket's welcome may have been lost.
    UseAgain {
        player: usize,
    },
    /// Somebody else has the ticket by which a player came, too.
    Copy {
        player: usize,
    },
    /// All of a user's tickets are revoked, or the one that a player kept last.
    Revoke {
        player: usize,
        all: bool,
    },
    Disconnect {
        player: usize,
    },
    /// Somebody who does not take part tries to enter as a player.
    Stranger {
        duel: usize,
    },
    Kill,
    Restart,
}

struct Maker {
    random: StdRng,
    /// Pushes so far.
    pushes: u64,
}

impl Schedule {
    /// The schedule that the seed stands for.
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut maker = Maker { random: StdRng::seed_from_u64(seed), pushes: 0 };
        let log_events_max = *[4, 8, 30, 80, 1000].choose(&mut maker.random).unwrap();
        let per_user_max = *[1, 3].choose(&mut maker.random).unwrap();
        let count = maker.random.random_range(30..120);
        let mut steps: Vec<_> = (0..count).map(|_| maker.step()).collect();
        // Late enough that there was something to close, early enough that something follows.
        if maker.chance(60) {
            let close = maker.close();
            steps.insert(maker.random.random_range(count / 2..count), close);
        }
        Self { log_events_max, per_user_max, steps }
    }
}

impl Maker {
    /// Yes in `percent` of a hundred times.
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn duel(&mut self) -> usize {
        usize::from(self.chance(20))
    }

    fn player(&mut self) -> usize {
        self.below(PLAYERS.len())
    }

    fn nth(&mut self) -> u64 {
        self.pushes += 1;
        self.pushes
    }

    fn spec(&mut self) -> Spec {
        let nth = self.nth();
        let event_type = *TYPES.choose(&mut self.random).unwrap();
        let to = *AUDIENCES.choose(&mut self.random).unwrap();
        let view = self.chance(25).then(|| self.random.random_range(1..=3));
        let key = self.chance(25).then_some(nth);
        let coalesce =
            self.chance(20).then(|| *["timer", "score"].choose(&mut self.random).unwrap());
        let transient = self.chance(25);
        let spec = Spec { nth, event_type, to, view: None, key, coalesce, transient };
        // A view is for somebody who may see the event.
        let may_see = |id: &u64| spec.includes(Viewer { user: user(*id), role: Role::Player });
        Spec { view: view.filter(may_see), ..spec }
    }

    fn specs(&mut self) -> Vec<Spec> {
        // Some are too many for the tail that a hub keeps at hand.
        let count = if self.chance(20) { 65..100 } else { 1..12 };
        let count = self.random.random_range(count);
        (0..count).map(|_| self.spec()).collect()
    }

    fn close(&mut self) -> Step {
        let outcome = *[Outcome::Finished, Outcome::Cancelled].choose(&mut self.random).unwrap();
        let last = self.chance(50).then(|| Spec {
            key: None,
            coalesce: None,
            transient: false,
            ..self.spec()
        });
        Step::Close { duel: self.duel(), outcome, last, awaited: self.chance(70) }
    }

    fn step(&mut self) -> Step {
        let player = self.player();
        match self.below(200) {
            0..45 => Step::Push { duel: self.duel(), spec: self.spec(), awaited: self.chance(60) },
            45..57 => Step::PushAgain {
                duel: self.duel(),
                which: self.below(1000),
                nth: self.nth(),
                same: self.chance(60),
            },
            57..69 => Step::Burst { duel: self.duel(), specs: self.specs() },
            69..76 => Step::Settle { backwards: self.chance(50) },
            76..79 => Step::Declare { duel: self.duel() },
            79..112 => {
                let resume = self.chance(75);
                let from_pocket = self.chance(35).then(|| self.below(1000));
                Step::Connect { player, resume, from_pocket }
            }
            112..122 => Step::Cut { player },
            122..142 => Step::Read { player, batches: 1 + self.below(3) },
            142..160 => Step::CatchUp { player },
            160..165 => Step::Ping { player },
            165..171 => Step::Ack { player },
            171..179 => Step::Pocket { player },
            179..183 => Step::UseAgain { player },
            183 => Step::Copy { player },
            184..188 => Step::Revoke { player, all: self.chance(50) },
            188..191 => Step::Disconnect { player },
            191..194 => Step::Stranger { duel: self.duel() },
            194..197 => Step::Kill,
            _ => Step::Restart,
        }
    }
}
