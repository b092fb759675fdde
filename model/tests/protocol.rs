//! The protocol holds in every state of the small configurations, and fails in some state as soon
//! as one of its rules is dropped.

use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model};
use strongroom_model::catalogue::{ALL_OF_IT, NEEDED, SMALL, SPARE};
use strongroom_model::config::Config;
use strongroom_model::explore::{Bounds, explore, walk};
use strongroom_model::protocol::Protocol;
use strongroom_model::rules::Rule;

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(300), states_max: 10_000_000 };

fn holds(config: &Config) {
    let outcome = explore(&Protocol { config: *config }, BOUNDS);
    assert!(outcome.complete && outcome.fault.is_none(), "{config:?}: {outcome:?}");
    assert!(outcome.states > 1000, "{config:?}: hardly anything happens here");
}

#[test]
fn protocol_holds_in_all_states_of_the_small_configurations() {
    SMALL.iter().for_each(holds);
}

/// Our own search and stateright's visit the same states.
#[test]
fn stateright_agrees() {
    for config in &SMALL[..4] {
        let protocol = Protocol { config: *config };
        let own = explore(&protocol, BOUNDS);
        let checker = protocol.checker().spawn_bfs().join();
        checker.assert_properties();
        assert_eq!(checker.unique_state_count(), own.states, "{}", config.name);
    }
}

#[test]
fn each_rule_is_needed() {
    for case in NEEDED {
        let protocol = Protocol { config: case.broken() };
        assert!(protocol.config.pruners == 2);
        let checker = protocol.checker().finish_when(HasDiscoveries::Any);
        let checker = checker.target_state_count(3_000_000).spawn_bfs().join();
        let found = checker.discoveries();
        assert!(!found.is_empty(), "nothing is lost without {:?}", case.rule);
        let (_, path) = found.into_iter().next().expect("not empty");
        assert!(path.into_actions().len() > 3, "{:?}: lost from the start", case.rule);
    }
}

#[test]
fn rules_that_others_make_superfluous() {
    for spare in SPARE {
        holds(&spare.config.without(spare.rule));
    }
}

/// Where no search reaches, random runs do; that they find faults is shown by dropping rules.
#[test]
fn random_runs_with_all_features() {
    let runs = |config, states_max| {
        let bounds = Bounds { time: Duration::from_secs(300), states_max };
        walk(&Protocol { config }, bounds, 1).fault
    };
    assert!(runs(ALL_OF_IT, 3000).is_none());
    for rule in [Rule::SecondRead, Rule::SingleVerdict, Rule::BasesLive, Rule::RunRescue] {
        assert!(runs(ALL_OF_IT.without(rule), 3000).is_some(), "{rule:?}");
    }
}

#[test]
fn every_rule_is_examined() {
    for rule in Rule::ALL {
        let needed = NEEDED.iter().any(|case| case.rule == *rule);
        let spare = SPARE.iter().any(|spare| spare.rule == *rule);
        assert!(needed || spare, "{rule:?}");
    }
}
