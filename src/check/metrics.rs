//! What the hub has counted since its start, as far as it tells of mistakes in a backend or in nginx.
//!
//! From outside, such a mistake looks like health: the push is answered, and a player waits. The counters see it.

use super::{Checks, Verdict};

const WHAT: &str = "what the hub has counted since its start";

/// A counter, and what it says once it is not zero.
struct Sign {
    /// The name, and the labels that the line must have.
    name: &'static str,
    labels: &'static [&'static str],
    /// What has happened so many times.
    happened: &'static str,
    remedy: &'static str,
}

const SIGNS: &[Sign] = &[
    Sign {
        name: "duelhub_handshakes_refused_total",
        labels: &["reason=\"invalid_ticket\""],
        happened: "handshakes had a ticket that this hub did not issue, which ends the WebApp's attempts",
        remedy: "let nginx send such tickets to whoever issued them (deploy/game/duelhub-http.conf); one secret on all nodes",
    },
    Sign {
        name: "duelhub_rpcs_total",
        labels: &["method=\"PushEvent\"", "code=\"INVALID_ARGUMENT\""],
        happened: "pushes were malformed",
        remedy: "the log names the field. PHP: json_encode([]) is [], cast it to (object); cast ids in the payload to (int); clients/php does both",
    },
    Sign {
        name: "duelhub_rpcs_total",
        labels: &["method=\"PushEvent\"", "code=\"FAILED_PRECONDITION\""],
        happened: "pushes went to a duel that is closed",
        remedy: "push before CloseDuel. A database made anew uses ids again: OpenDuel with reopen, or ids that go on from the last",
    },
    Sign {
        name: "duelhub_rpcs_total",
        labels: &["method=\"IssueTicket\"", "code=\"FAILED_PRECONDITION\""],
        happened: "tickets were asked for a duel that is closed",
        remedy: "right after an end. For a new duel its id was used before: OpenDuel with reopen, or ids that go on from the last",
    },
    Sign {
        name: "duelhub_rpcs_total",
        labels: &["method=\"CloseDuel\"", "code=\"FAILED_PRECONDITION\""],
        happened: "duels were closed again with another status",
        remedy: "a duel ends once: finished after cancelled is a mistake of the backend",
    },
];

/// As the signs above, but only a mistake where the hub's own ticket API is used.
const UNDECLARED: Sign = Sign {
    name: "duelhub_pushes_undeclared_total",
    labels: &[],
    happened: "pushes went to duels that nobody has declared: the ticket API answers 404 for them, for ever",
    remedy: "the backend calls OpenDuel for each duel before its first push, and again after the store was lost",
};

impl Checks<'_> {
    /// Reads the metrics, and reports each sign of a mistake.
    pub(super) async fn read_metrics(&mut self) {
        let url = format!("http://{}/metrics", self.options.config.admin.address);
        let text = match self.web.get(&url, &[]).await {
            Ok(answer) if answer.status == 200 => answer.text,
            Ok(answer) => return self.no_metrics(&format!("{url}: HTTP {}", answer.status)),
            Err(error) => return self.no_metrics(&error),
        };
        let undeclared = self.hub_answers_tickets.then_some(&UNDECLARED);
        let seen: Vec<_> = undeclared
            .into_iter()
            .chain(SIGNS)
            .filter_map(|sign| Some((sign, count(&text, sign)?)))
            .collect();
        if seen.is_empty() {
            (self.report)(WHAT, Verdict::Good("no mistake of a backend".into()));
        }
        for (sign, count) in seen {
            let doubt = format!("{count} {}", sign.happened);
            (self.report)(WHAT, Verdict::Doubtful { doubt, remedy: sign.remedy });
        }
    }

    fn no_metrics(&mut self, doubt: &str) {
        let doubt = doubt.to_owned();
        let remedy = "ADMIN_HOST and ADMIN_PORT in the env file; run this on the hub's host";
        (self.report)(WHAT, Verdict::Doubtful { doubt, remedy });
    }
}

/// Returns the sum of the sign's lines. `None`: zero.
fn count(text: &str, sign: &Sign) -> Option<u64> {
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(sign.name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && sign.labels.iter().all(|label| line.contains(label))
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Some(values.sum()).filter(|sum| *sum > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_sign_count() {
        let text = "# HELP duelhub_rpcs_total x\n\
                    duelhub_rpcs_total{method=\"PushEvent\",code=\"INVALID_ARGUMENT\"} 3\n\
                    duelhub_rpcs_total{code=\"INVALID_ARGUMENT\",method=\"OpenDuel\"} 5\n\
                    duelhub_pushes_undeclared_total 0\n";
        let counts: Vec<_> = SIGNS.iter().map(|sign| count(text, sign)).collect();
        assert_eq!(counts, [None, Some(3), None, None, None]);
        assert_eq!(count(text, &UNDECLARED), None);
        assert_eq!(count("duelhub_pushes_undeclared_total 7\n", &UNDECLARED), Some(7));
    }
}
