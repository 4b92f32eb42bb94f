//! Hosts whose light and dark times are known, asked over a network that is as late as it likes.

use super::*;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq};

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

fn name(host: usize) -> NodeName {
    format!("gra-{}", host + 1).parse().unwrap()
}

/// Light times of some hosts, in microseconds.
type Lights = Vec<Vec<(u64, u64)>>;

/// What comes between a host and who asks it, in microseconds.
#[derive(Debug, Clone)]
struct Network {
    /// From one probe to the next.
    every: Vec<u64>,
    /// Until a probe has arrived, and then until its answer has been read.
    late: Vec<(u64, u64)>,
    lost: Vec<bool>,
}

impl Network {
    fn prompt() -> Self {
        Self { every: vec![1_000], late: vec![(50, 50)], lost: vec![false] }
    }

    /// Asks each host until `end`.
    fn ask(&self, start: Instant, lights: &Lights, end: u64) -> Probing {
        let mut hosts: Vec<_> = (0..lights.len()).map(|host| Asked::new(name(host))).collect();
        let mut late = self.late.iter().cycle();
        let mut lost = self.lost.iter().cycle();
        let (mut now, mut last, mut rounds, mut apart) = (0, 0, 0, 0);
        for every in self.every.iter().cycle() {
            if now > end {
                break;
            }
            for (host, lights) in hosts.iter_mut().zip(lights) {
                let (there, back) = *late.next().unwrap();
                let arrives = now + there;
                let light = lights.iter().any(|(from, to)| (*from..*to).contains(&arrives));
                let answered = light && !lost.next().unwrap();
                let answered = answered.then(|| start + u32::try_from(arrives + back).unwrap() * US);
                host.probe(Probe { sent: start + u32::try_from(now).unwrap() * US, answered });
            }
            rounds += 1;
            apart = apart.max(*every);
            last = now;
            now += every;
        }
        let between = Some((start, start + u32::try_from(last).unwrap() * US));
        Probing { hosts, rounds, between, apart: Duration::from_micros(apart) }
    }
}

fn whole(start: Instant) -> Period {
    Period { from: start, to: start + Duration::from_secs(1_000) }
}

fn looked_at(lights: Lights, end: u64) -> Answering {
    let start = Instant::now();
    find(&Network::prompt().ask(start, &lights, end), whole(start))
}

#[test]
fn a_handover_shows_nobody_for_a_while_and_never_two() {
    let found = looked_at(vec![vec![(0, 100_000)], vec![(150_000, 300_000)]], 299_000);
    assert_eq!(found.two_hosts, Share::default());
    assert_eq!(found.nobody, Share { longest: 50 * MS, total: 50 * MS });
    assert_eq!((found.every, found.apart), (MS, MS));
    assert_eq!(found.hosts.iter().map(|host| host.periods.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((found.hosts[0].answers, found.hosts[0].probes), (100, 300));
    assert!(!found.unproven && found.evidence.is_empty(), "{found:?}");
}

#[test]
fn two_hosts_are_found_for_as_long_as_both_answered() {
    let found = looked_at(vec![vec![(0, 200_000)], vec![(150_000, 300_000)]], 299_000);
    // The first answer of the one was read at 150.1 ms, the last answered probe to the other sent at 199.
    assert_eq!(found.two_hosts.total, Duration::from_micros(48_900));
    assert_eq!(found.evidence[0].line, "gra-1 and gra-2 both answered probes for 48.9ms");
    assert_eq!(found.evidence.len(), 1);
}

/// A thawed owner that says one word more.
#[test]
fn a_single_answer_within_the_time_of_another_host_is_found() {
    let found = looked_at(vec![vec![(0, 100_000), (200_000, 200_500)], vec![(150_000, 300_000)]], 299_000);
    assert_eq!(found.two_hosts, Share { longest: MS, total: MS });
}

/// Two single answers prove nothing of any one moment: each may have been given before or after the other.
#[test]
fn single_answers_of_two_hosts_prove_nothing() {
    let found = looked_at(vec![vec![(100_000, 100_900)], vec![(100_000, 100_900)]], 200_000);
    assert_eq!(found.two_hosts, Share::default());
    assert_eq!(found.hosts.iter().map(|host| host.answers).collect::<Vec<_>>(), [1, 1]);
}

/// It moved there and back while nobody asked.
#[test]
fn a_time_in_which_nothing_was_asked_proves_nothing() {
    let start = Instant::now();
    let mut network = Network::prompt();
    network.every = [vec![1_000; 100], vec![100_000], vec![1_000; 100]].concat();
    let lights = vec![vec![(0, 110_000), (180_000, 400_000)], vec![(120_000, 170_000)]];
    let probing = network.ask(start, &lights, 298_000);
    let found = find(&probing, whole(start));
    assert_eq!(found.two_hosts, Share::default());
    assert_eq!(found.apart, 100 * MS);
    assert_eq!(found.hosts[0].periods.len(), 1, "no probe says that it was dark");
}

#[test]
fn a_lost_probe_is_a_blink_and_no_change() {
    let start = Instant::now();
    let network =
        Network { lost: [vec![false; 50], vec![true], vec![false; 49]].concat(), ..Network::prompt() };
    let found = find(&network.ask(start, &vec![vec![(0, 100_000)]], 99_000), whole(start));
    assert_eq!(found.hosts[0].periods.len(), 1);
    assert_eq!(found.nobody, Share { longest: MS, total: MS }, "it may as well have been dark");
}

#[test]
fn nobody_is_looked_for_in_the_window_only() {
    let start = Instant::now();
    let probing = Network::prompt().ask(start, &vec![vec![(100_000, 200_000)], vec![]], 299_000);
    let window = Period { from: start + 90 * MS, to: start + 205 * MS };
    assert_eq!(find(&probing, window).nobody, Share { longest: 10 * MS, total: 15 * MS });
}

#[test]
fn without_any_answer_nothing_is_proven() {
    assert!(looked_at(vec![vec![], vec![]], 100_000).unproven);
}

#[test]
fn what_a_dark_host_sends_is_held_against_it_and_what_comes_late_is_not() {
    let start = Instant::now();
    let lights = vec![vec![(0, 100_000), (300_000, 400_000)]];
    let with = |frame, moments: &[u32]| {
        let mut probing = Network::prompt().ask(start, &lights, 399_000);
        for moment in moments {
            probing.hosts[0].frame(frame, start + *moment * MS);
        }
        find(&probing, whole(start))
    };
    let every_4_ms = |from, to| (from..to).step_by(4).collect::<Vec<u32>>();
    assert_eq!(with(Frame::Packet, &every_4_ms(0, 120)).dark_frames, 0, "what it had said before");
    assert_eq!(with(Frame::Packet, &every_4_ms(296, 400)).dark_frames, 0, "when it becomes light again");
    assert_eq!(with(Frame::Packet, &every_4_ms(0, 400)).dark_frames, 1);
    assert_eq!(with(Frame::Packet, &every_4_ms(0, 130)).dark_frames, 1);
    let found = with(Frame::ArpRequest, &[0, 250]);
    assert_eq!(found.dark_frames, 1);
    let line = "gra-1 sent an ARP request with the address when it had been dark for 150ms";
    assert_eq!(found.evidence[0].line, line);
    assert_eq!(found.evidence.len(), 1);
}

/// Who is light one after the other, with times of darkness in between; light for longer than an answer can take and
/// nobody can be asked.
fn handovers() -> impl Strategy<Value = (Lights, u64)> {
    proptest::collection::vec((0_usize..3, 30_000_u64..80_000, 0_u64..20_000), 1..8).prop_map(|tenures| {
        let mut lights = vec![Vec::new(); 3];
        let mut now = 0;
        for (host, light, dark) in tenures {
            lights[host].push((now, now + light));
            now += light + dark;
        }
        (lights, now)
    })
}

proptest::proptest! {
    /// However late probes and answers are, in whatever order they come, and whatever is lost: who hands over rightly
    /// is never accused.
    #[test]
    fn right_handovers_never_show_two(
        (lights, end) in handovers(),
        every in proptest::collection::vec(200_u64..40_000, 1..50),
        late in proptest::collection::vec((0_u64..30_000, 0_u64..30_000), 1..50),
        lost in proptest::collection::vec(proptest::bool::weighted(0.2), 1..50),
    ) {
        let start = Instant::now();
        let found = find(&Network { every, late, lost }.ask(start, &lights, end), whole(start));
        prop_assert_eq!(found.two_hosts, Share::default());
    }

    /// What is found is never more than there was, and less by no more than what is said.
    #[test]
    fn two_at_once_are_found_and_not_made_longer(
        from in 0_u64..50_000,
        both in 5_000_u64..100_000,
        late in proptest::collection::vec((0_u64..800, 0_u64..800), 1..50),
    ) {
        let start = Instant::now();
        let network = Network { late, ..Network::prompt() };
        let lights = vec![vec![(0, from + both)], vec![(from, 400_000)]];
        let found = find(&network.ask(start, &lights, 200_000), whole(start)).two_hosts.total;
        let there_was = Duration::from_micros(both);
        // At each end: the time between two probes, and that of an answer.
        let unseen = 2 * (MS + Duration::from_micros(1_600));
        prop_assert!(found <= there_was && found + unseen >= there_was, "{found:?} of {there_was:?}");
    }
}
