//! The order of the turns. Every system has its turn in each round, next to the others, so that
//! changes of the machine in the course of a run reach all of them.

use std::fmt;

use crate::systems::System;

/// One turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) round: usize,
    pub(crate) system: System,
    pub(crate) agents: usize,
    /// Events that each agent writes.
    pub(crate) writes: usize,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agents = if self.agents == 1 { "agent" } else { "agents" };
        write!(f, "{} {agents}, {}", self.agents, self.system.title())
    }
}

/// Short turns of one agent per round, in place of a long one. A narrow bar compares its time with
/// a bare sync, and less changes between short turns.
const TURNS_OF_ONE_AGENT: usize = 4;

/// All turns in their order. Each round begins with another system.
pub(crate) fn steps(
    rounds: usize,
    agents: &[usize],
    systems: &[System],
    writes: impl Fn(usize) -> usize,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..rounds {
        for &agents in agents {
            let repeats = if agents == 1 { TURNS_OF_ONE_AGENT } else { 1 };
            for begin in (0..repeats).map(|repeat| round + repeat) {
                let begin = begin % systems.len().max(1);
                let turns = systems.iter().cycle().skip(begin).take(systems.len());
                for &system in turns.filter(|system| agents == 1 || !system.is_alone()) {
                    steps.push(Step {
                        round,
                        system,
                        agents,
                        writes: (writes(agents) / repeats).max(1),
                    });
                }
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEMS: [System; 3] = [System::Strand, System::Plan, System::Bare];

    #[test]
    fn every_system_has_one_turn_for_each_number_of_agents_in_each_round() {
        let steps = steps(4, &[1, 20], &SYSTEMS, |_| 100);
        assert_eq!(
            steps.len(),
            4 * (SYSTEMS.len() * TURNS_OF_ONE_AGENT + 2),
            "a limit of one process runs with one agent only"
        );
        for round in 0..4 {
            for system in SYSTEMS {
                let turns = |agents| {
                    let mine = |step: &&Step| {
                        (step.round, step.system, step.agents) == (round, system, agents)
                    };
                    steps.iter().filter(mine).count()
                };
                assert_eq!(turns(1), TURNS_OF_ONE_AGENT);
                assert_eq!(turns(20), usize::from(!system.is_alone()));
            }
        }
        let all = |round: usize| {
            let mine = steps
                .iter()
                .filter(|step| step.round == round && step.agents == 1);
            mine.map(|step| step.writes).sum::<usize>()
        };
        assert_eq!(all(0), 3 * 100, "short turns write what a long one would");
    }

    #[test]
    fn rounds_follow_each_other_and_another_system_begins_each() {
        let steps = steps(
            3,
            &[5],
            &[System::Strand, System::Plan, System::StrandBuffered],
            |_| 1,
        );
        assert!(steps.is_sorted_by_key(|step| step.round));
        let first: Vec<System> = steps.iter().step_by(3).map(|step| step.system).collect();
        assert_eq!(
            first,
            [System::Strand, System::Plan, System::StrandBuffered]
        );
    }
}
