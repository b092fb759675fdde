//! `strongroom-model [--minutes N] [--states N] [--only TEXT]`: explores the configurations of the
//! catalogue and prints a table. `strongroom-model --without RULE`: prints the shortest way to a
//! loss without that rule.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use strongroom_model::catalogue::{LARGE, NEEDED, SMALL};
use strongroom_model::explore::{Bounds, explore};
use strongroom_model::protocol::Protocol;

fn main() -> ExitCode {
    let mut minutes = 2.0;
    let mut states_max = 100_000_000;
    let mut only = String::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        match arg.as_str() {
            "--minutes" => minutes = value.parse().expect("--minutes takes a number"),
            "--states" => states_max = value.parse().expect("--states takes a number"),
            "--only" => only = value,
            "--without" => return show(&value),
            _ => {
                eprintln!(
                    "--minutes N (each), --states N (at most, each), --only TEXT, --without RULE"
                );
                return ExitCode::from(2);
            }
        }
    }
    let bounds = Bounds { time: Duration::from_secs_f64(minutes * 60.0), states_max };
    println!("| configuration | steps | states | depth | complete | minutes | verdict |");
    println!("|---|---|---|---|---|---|---|");
    let mut fine = true;
    for config in SMALL.iter().chain(LARGE).filter(|c| c.name.contains(&only)) {
        let begin = Instant::now();
        let outcome = explore(&Protocol { config: *config }, bounds);
        let verdict = outcome.fault.as_ref().map_or("holds", |(_, property)| property);
        fine &= outcome.fault.is_none();
        println!(
            "| {} | {} | {} | {} | {} | {:.1} | {verdict} |",
            config.name,
            outcome.steps,
            outcome.states,
            outcome.depth,
            if outcome.complete { "yes" } else { "no" },
            begin.elapsed().as_secs_f64() / 60.0,
        );
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(rule: &str) -> ExitCode {
    let Some(case) = NEEDED.iter().find(|case| format!("{:?}", case.rule) == rule) else {
        for case in NEEDED {
            println!("{:?}: {}", case.rule, case.rule.text());
        }
        return ExitCode::from(2);
    };
    let checker = Protocol { config: case.broken() }.checker();
    let checker = checker.finish_when(HasDiscoveries::Any).spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        println!("Without \"{}\" this fails: {property}", case.rule.text());
        for step in path.into_actions() {
            println!("  {} {} {} {:#b}", step.who, step.number, step.what, step.detail);
        }
    }
    ExitCode::SUCCESS
}
