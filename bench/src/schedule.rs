//! Who has its turn when: every system once in each round, next to the others, so that whatever
//! changes on the machine in the course of a run changes for all of them.

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

/// All turns in their order. In each round another system begins.
pub(crate) fn steps(
    rounds: usize,
    agents: &[usize],
    systems: &[System],
    writes: impl Fn(System, usize) -> usize,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..rounds {
        for &agents in agents {
            let begin = round % systems.len().max(1);
            let turns = systems.iter().cycle().skip(begin).take(systems.len());
            for &system in turns.filter(|system| agents == 1 || !system.is_alone()) {
                steps.push(Step {
                    round,
                    system,
                    agents,
                    writes: writes(system, agents),
                });
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
        let steps = steps(4, &[1, 20], &SYSTEMS, |_, agents| 100 / agents);
        assert_eq!(steps.len(), 4 * (3 + 2), "a limit of one process runs with one agent only");
        for round in 0..4 {
            for system in SYSTEMS {
                let turns = |agents| {
                    let mine = |step: &&Step| {
                        (step.round, step.system, step.agents) == (round, system, agents)
                    };
                    steps.iter().filter(mine).count()
                };
                assert_eq!(turns(1), 1);
                assert_eq!(turns(20), usize::from(!system.is_alone()));
            }
        }
        assert!(steps.iter().all(|step| step.writes == 100 / step.agents));
    }

    #[test]
    fn rounds_follow_each_other_and_another_system_begins_each() {
        let steps = steps(3, &[1], &SYSTEMS, |_, _| 1);
        assert!(steps.is_sorted_by_key(|step| step.round));
        let first: Vec<System> = steps.iter().step_by(3).map(|step| step.system).collect();
        assert_eq!(first, SYSTEMS);
    }
}
