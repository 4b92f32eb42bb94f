use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for loopback to deliver what it is going to deliver.
const SILENCE: Duration = Duration::from_millis(250);

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn nobody() -> Holder {
    Arc::new(|| None)
}

struct Bench {
    wan: Wan,
    via: SocketAddr,
    target: TcpListener,
}

impl Bench {
    async fn new() -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let passage = Passage {
            from: site("gra"),
            to: site("sbg"),
            via: "127.0.0.1:0".parse().unwrap(),
            target: target.local_addr().unwrap(),
        };
        let wan = Wan::start(&[passage], &[], &nobody(), &Arc::new(())).unwrap();
        let via = wan.listeners[&(site("gra"), site("sbg"))][0].address().unwrap();
        Self { wan, via, target }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let near = timeout(PATIENCE, TcpStream::connect(self.via)).await.unwrap().unwrap();
        let (far, _) = timeout(PATIENCE, self.target.accept()).await.unwrap().unwrap();
        (near, far)
    }

    fn shape(&self, from: &str, to: &str, shape: Shape) {
        self.wan.shape(&site(from), &site(to), shape).unwrap();
    }

    fn cut(&self, from: &str, to: &str) {
        self.wan.cut(&site(from), &site(to)).unwrap();
    }
}

async fn arrives(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).await.unwrap();
    let mut got = vec![0; text.len()];
    timeout(PATIENCE, to.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, text.as_bytes());
}

async fn vanishes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"lost").await.unwrap();
    let mut byte = [0];
    assert!(timeout(SILENCE, to.read(&mut byte)).await.is_err(), "something came through");
}

async fn is_reset(stream: &mut TcpStream) {
    let mut byte = [0];
    let error = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_whole_path_carries_both_ways_and_ends_in_order() {
    let bench = Bench::new().await;
    let (mut near, mut far) = bench.connect().await;
    arrives(&mut near, &mut far, "hello").await;
    arrives(&mut far, &mut near, "and back").await;
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(timeout(PATIENCE, far.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);
    // Half closed: the other direction still works.
    far.write_all(b"last").await.unwrap();
    drop(far);
    timeout(PATIENCE, near.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn a_cut_is_silent_and_healing_resets_what_lost_bytes() {
    let bench = Bench::new().await;
    let (mut near, mut far) = bench.connect().await;
    let (mut idle_near, mut idle_far) = bench.connect().await;
    arrives(&mut near, &mut far, "before").await;
    bench.cut("gra", "sbg");
    bench.cut("sbg", "gra");
    vanishes(&mut near, &mut far).await;
    vanishes(&mut far, &mut near).await;
    bench.wan.heal().unwrap();
    is_reset(&mut near).await;
    is_reset(&mut far).await;
    // A connection on which nothing was said meanwhile lost nothing, and goes on.
    arrives(&mut idle_near, &mut idle_far, "still here").await;
}

#[tokio::test]
async fn a_one_way_cut_lets_the_other_way_pass() {
    let bench = Bench::new().await;
    let (mut near, mut far) = bench.connect().await;
    bench.cut("sbg", "gra");
    arrives(&mut near, &mut far, "there").await;
    vanishes(&mut far, &mut near).await;
    assert!(bench.wan.shape_of(&site("sbg"), &site("gra")).cut);
    assert!(!bench.wan.shape_of(&site("gra"), &site("sbg")).cut);
}

#[tokio::test]
async fn connection_attempts_over_a_cut_get_no_answer_until_it_heals() {
    for (from, to) in [("gra", "sbg"), ("sbg", "gra")] {
        let bench = Bench::new().await;
        bench.cut(from, to);
        let attempt = tokio::spawn(TcpStream::connect(bench.via));
        tokio::time::sleep(SILENCE).await;
        assert!(!attempt.is_finished(), "{from} -> {to} is cut and the attempt was answered");
        bench.wan.heal().unwrap();
        // The kernel repeats the SYN after 1 s.
        timeout(PATIENCE, attempt).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_end_of_one_side_is_not_heard_over_a_cut() {
    let bench = Bench::new().await;
    let (near, mut far) = bench.connect().await;
    bench.cut("gra", "sbg");
    drop(near);
    let mut byte = [0];
    assert!(timeout(SILENCE, far.read(&mut byte)).await.is_err(), "the end was heard");
    bench.wan.heal().unwrap();
    is_reset(&mut far).await;
}

#[tokio::test]
async fn delay_applies_to_one_direction_and_keeps_the_order() {
    let bench = Bench::new().await;
    let (mut near, mut far) = bench.connect().await;
    let ms = Duration::from_millis;
    bench.shape("gra", "sbg", Shape { delay: ms(150), jitter: ms(50), ..Shape::default() });
    let start = Instant::now();
    for piece in ["a", "b", "c", "d"] {
        near.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(ms(5)).await;
    }
    let mut got = [0; 4];
    timeout(PATIENCE, far.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(start.elapsed() >= ms(150), "{:?}", start.elapsed());
    assert_eq!(&got, b"abcd");
    let start = Instant::now();
    arrives(&mut far, &mut near, "back").await;
    assert!(start.elapsed() < ms(150), "the way back is slow too: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_rate_is_held_over_all_connections_together() {
    let bench = Bench::new().await;
    let (mut one, mut one_far) = bench.connect().await;
    let (mut two, mut two_far) = bench.connect().await;
    bench.shape("gra", "sbg", Shape { rate: Some(200_000), ..Shape::default() });
    let start = Instant::now();
    let piece = vec![7; 40_000];
    one.write_all(&piece).await.unwrap();
    two.write_all(&piece).await.unwrap();
    let (mut a, mut b) = (vec![0; 40_000], vec![0; 40_000]);
    let both = async { tokio::try_join!(one_far.read_exact(&mut a), two_far.read_exact(&mut b)) };
    timeout(PATIENCE, both).await.unwrap().unwrap();
    // 80 kB at 200 kB/s take 400 ms.
    assert!(start.elapsed() >= Duration::from_millis(380), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_target_that_is_down_resets() {
    let bench = Bench::new().await;
    let via = bench.via;
    drop(bench.target);
    let mut near = timeout(PATIENCE, TcpStream::connect(via)).await.unwrap().unwrap();
    is_reset(&mut near).await;
}

#[tokio::test]
async fn an_unknown_link_is_named() {
    let bench = Bench::new().await;
    let error = bench.wan.cut(&site("gra"), &site("mars")).unwrap_err().to_string();
    assert_eq!(error, "there is no link gra -> mars");
}

#[tokio::test]
async fn dropping_the_wan_ends_its_connections() {
    let bench = Bench::new().await;
    let (_near, mut far) = bench.connect().await;
    drop(bench.wan);
    let mut byte = [0];
    let read = timeout(PATIENCE, far.read(&mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn an_address_that_moves_is_cut_with_the_site_that_holds_it() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // A port that was free a moment ago, because nobody says which one a floating relay has.
    let via = unused.local_addr().unwrap();
    drop(unused);
    let passage = |to: &str| Passage {
        from: site("wit"),
        to: site(to),
        via: "127.0.0.1:0".parse().unwrap(),
        target: target.local_addr().unwrap(),
    };
    let floating = FloatingPassage { from: site("wit"), via, target: target.local_addr().unwrap() };
    let held_by = Arc::new(std::sync::Mutex::new(site("gra")));
    let holder: Holder = {
        let held_by = Arc::clone(&held_by);
        Arc::new(move || Some(held_by.lock().unwrap().clone()))
    };
    let wan = Wan::start(&[passage("gra"), passage("sbg")], &[floating], &holder, &Arc::new(())).unwrap();
    wan.cut(&site("wit"), &site("gra")).unwrap();
    let connect = async || {
        let near = timeout(PATIENCE, TcpStream::connect(via)).await.unwrap().unwrap();
        let (far, _) = timeout(PATIENCE, target.accept()).await.unwrap().unwrap();
        (near, far)
    };
    let (mut near, mut far) = connect().await;
    vanishes(&mut near, &mut far).await;
    // Moved to a site that is not cut off, and to the dialling site itself.
    for reached in ["sbg", "wit"] {
        *held_by.lock().unwrap() = site(reached);
        let (mut near, mut far) = connect().await;
        arrives(&mut near, &mut far, "hello").await;
        arrives(&mut far, &mut near, "and back").await;
    }
}

#[tokio::test]
async fn streams_lose_nothing_and_say_so() {
    let bench = Bench::new().await;
    let lossy = Shape { loss: Percent::try_from(1).unwrap(), ..Shape::default() };
    let refused = bench.wan.shape(&site("gra"), &site("sbg"), lossy);
    assert!(matches!(refused, Err(WanError::NoPackets)), "{refused:?}");
    assert_eq!(bench.wan.shape_of(&site("gra"), &site("sbg")), Shape::default());
}
