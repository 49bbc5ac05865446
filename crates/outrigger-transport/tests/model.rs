//! Every order in which callers, a switch and a drain can meet, by loom, which runs the
//! file that the router itself is made of.

#[allow(dead_code)] // What calls are refused with is not modelled.
#[path = "../src/router/switch.rs"]
mod switch;

use loom::sync::Notify;
use loom::sync::atomic::AtomicBool;

use self::switch::{Generation, ONE, Point, SHUT, Switch};
use self::sync::{Arc, Ordering};

/// What `switch.rs` is built on, watched by loom.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};
    pub(super) use loom::sync::{Arc, RwLock};
    pub(super) use std::sync::PoisonError;
}

/// What a generation leads to.
struct Plugin {
    /// Its drain has ended: the process is stopped.
    stopped: AtomicBool,
    left: Notify,
}

type Plugins = Switch<Plugin, ()>;
type Enter = fn(&Plugins) -> Arc<Generation<Plugin>>;

fn plugin() -> Point<Plugin, ()> {
    Point::to(Plugin {
        stopped: AtomicBool::new(false),
        left: Notify::new(),
    })
}

/// One call, from when it enters a generation to when it leaves it.
fn call(plugins: &Plugins, enter: Enter) {
    let generation = enter(plugins);
    let stopped = generation.target.stopped.load(Ordering::SeqCst);
    assert!(!stopped, "a call is in a generation after its drain ended");
    if generation.gate.leave() {
        generation.target.left.notify();
    }
}

/// Replaces the plugin, and stops the old one when its calls have ended.
fn replace(plugins: &Plugins) {
    let old = plugins.turn(plugin()).expect("a generation");
    while !old.gate.is_left() {
        old.target.left.wait();
    }
    old.target.stopped.store(true, Ordering::SeqCst);
}

/// Runs `callers` beside an owner that replaces the plugin `times`.
fn explore(callers: usize, times: usize, enter: Enter) {
    let mut model = loom::model::Builder::new();
    // Faults of such small parts show with fewer: both mutants do with two.
    model.preemption_bound = Some(3);
    model.check(move || {
        let plugins = Arc::new(Plugins::new());
        assert!(plugins.turn(plugin()).is_none());
        let calls: Vec<_> = (0..callers)
            .map(|_| {
                let plugins = plugins.clone();
                loom::thread::spawn(move || call(&plugins, enter))
            })
            .collect();
        for _ in 0..times {
            replace(&plugins);
        }
        for call in calls {
            call.join().expect("a call");
        }
    });
}

fn current(plugins: &Plugins) -> Arc<Generation<Plugin>> {
    match plugins.now() {
        Point::To(generation) => generation,
        Point::Nowhere | Point::Refused(_) => unreachable!("there is always one"),
    }
}

/// As the router does it.
fn enter(plugins: &Plugins) -> Arc<Generation<Plugin>> {
    match plugins.enter() {
        Point::To(generation) => generation,
        Point::Nowhere | Point::Refused(_) => unreachable!("there is always one"),
    }
}

/// A mutant: counts without looking whether the generation is still the current one.
fn without_looking(plugins: &Plugins) -> Arc<Generation<Plugin>> {
    let generation = current(plugins);
    generation.gate.word.fetch_add(ONE, Ordering::AcqRel);
    generation
}

/// A mutant: looks first, and counts afterwards.
fn looking_too_early(plugins: &Plugins) -> Arc<Generation<Plugin>> {
    loop {
        let generation = current(plugins);
        if generation.gate.word.load(Ordering::Acquire) & SHUT == 0 {
            generation.gate.word.fetch_add(ONE, Ordering::AcqRel);
            return generation;
        }
    }
}

#[test]
fn no_call_is_in_a_generation_after_its_drain_ended_and_every_drain_ends() {
    explore(2, 1, enter);
    explore(1, 2, enter);
}

#[test]
#[should_panic(expected = "a call is in a generation after its drain ended")]
fn a_router_that_counts_without_looking_again_is_caught() {
    explore(1, 1, without_looking);
}

#[test]
#[should_panic(expected = "a call is in a generation after its drain ended")]
fn a_router_that_looks_before_it_counts_is_caught() {
    explore(1, 1, looking_too_early);
}
