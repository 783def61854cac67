//! The conditions under which a cluster is used. Pure.

use crate::{
    api::{Alarms, Members},
    error::Problem,
};

const VOTING_MEMBERS_MIN: usize = 3;

/// Refuses versions without the gateway of `/v3`, and those that lose or corrupt data.
pub(crate) fn version(endpoint: &str, version: &str) -> Result<(), Problem> {
    let refuse = |reason, instead| {
        Err(Problem::Version {
            endpoint: endpoint.to_owned(),
            version: version.to_owned(),
            reason,
            instead,
        })
    };
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<u64> = release
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    match numbers[..] {
        [..3, _, _] | [3, ..4, _] => refuse("has no gateway at /v3", "3.4.22"),
        [3, 4, 20..=21] => refuse("corrupts data after a crash", "3.4.22"),
        [3, 5, ..=5] => refuse("corrupts data after a crash", "3.5.6"),
        [_, _, _] => Ok(()),
        _ => Err(Problem::Damaged {
            what: format!("the version of {endpoint}"),
            reason: format!("{version:?} is not a version"),
        }),
    }
}

/// Refuses a cluster that loses everything with one disk.
pub(crate) fn members(members: &Members, allow_single_member: bool) -> Result<(), Problem> {
    let voting = members.members.iter().filter(|member| !member.is_learner);
    let voting = voting.count();
    if voting >= VOTING_MEMBERS_MIN || allow_single_member && voting > 0 {
        Ok(())
    } else {
        Err(Problem::TooFewMembers { voting })
    }
}

/// Refuses a cluster that has raised an alarm.
pub(crate) fn alarms(alarms: &Alarms) -> Result<(), Problem> {
    match alarms.alarms.first() {
        None => Ok(()),
        Some(alarm) => Err(Problem::Alarm {
            alarm: alarm.alarm.clone(),
        }),
    }
}

/// Refuses a cluster that is another one, or one that has forgotten a revision.
pub(crate) fn continuity(
    expected_cluster: Option<u64>,
    cluster: u64,
    seen_revision: u64,
    revision: u64,
) -> Result<(), Problem> {
    match expected_cluster {
        Some(expected) if expected != cluster => Err(Problem::OtherCluster {
            expected: format!("{expected:x}"),
            found: format!("{cluster:x}"),
        }),
        Some(_) if revision < seen_revision => Err(Problem::WentBack {
            seen: seen_revision,
            found: revision,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Alarm, Member};

    #[test]
    fn versions_that_corrupt_data_are_refused() {
        for good in [
            "3.4.19",
            "3.4.22",
            "3.4.23",
            "3.5.6",
            "3.5.21",
            "3.6.0",
            "3.6.0-rc.1",
            "4.0.0",
        ] {
            assert_eq!(version("h", good), Ok(()), "{good}");
        }
        for bad in [
            "2.3.8",
            "3.3.27",
            "3.4.20",
            "3.4.21",
            "3.5.0",
            "3.5.5",
            "3.5.3+git",
            "",
            "x",
            "3.5",
        ] {
            assert!(version("h", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fewer_than_three_voting_members_must_be_allowed() {
        let of = |voting: usize, learners: usize| {
            let mut members = Members::default();
            members.members.resize(voting, Member { is_learner: false });
            members
                .members
                .resize(voting + learners, Member { is_learner: true });
            members
        };
        assert!(super::members(&of(3, 0), false).is_ok());
        assert!(super::members(&of(2, 2), false).is_err());
        assert!(super::members(&of(1, 0), true).is_ok());
        assert!(super::members(&of(0, 0), true).is_err());
    }

    #[test]
    fn an_alarm_is_refused() {
        assert!(alarms(&Alarms::default()).is_ok());
        let mut raised = Alarms::default();
        raised.alarms.push(Alarm {
            alarm: "NOSPACE".to_owned(),
        });
        assert!(alarms(&raised).is_err());
    }

    #[test]
    fn a_cluster_neither_changes_nor_goes_back() {
        assert!(continuity(None, 7, 0, 3).is_ok());
        assert!(continuity(Some(7), 7, 3, 3).is_ok());
        assert!(continuity(Some(7), 7, 4, 3).is_err());
        assert!(continuity(Some(8), 7, 3, 3).is_err());
    }
}
