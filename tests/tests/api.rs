//! The public API while the cluster loses nodes: watching, asking, and what it says about itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use twinsite_api::v1::{self, operation_service_client::OperationServiceClient};
use twinsite_api::{Client, WatchMessage};
use twinsite_drill::layout::{NodePlace, Store};
use twinsite_model::{Event, Revision};
use twinsite_tests::{Lab, count};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(20);

/// Every change after a revision, up to and including another.
async fn changes(client: &Client, after: Revision, up_to: Revision) -> Vec<(Revision, Vec<Event>)> {
    let mut messages = client.watch(Some(after)).await.unwrap();
    let mut seen = Vec::new();
    collect(&mut messages, up_to, &mut seen).await;
    seen
}

async fn collect(
    messages: &mut tokio::sync::mpsc::Receiver<WatchMessage>,
    up_to: Revision,
    seen: &mut Vec<(Revision, Vec<Event>)>,
) {
    while seen.last().is_none_or(|(revision, _)| *revision < up_to) {
        match tokio::time::timeout(SOON, messages.recv()).await {
            Ok(Some(WatchMessage::Change { revision, events, .. })) => seen.push((revision, events)),
            Ok(Some(WatchMessage::Bookmark(_))) => {}
            other => panic!("{other:?} after {:?}", seen.last()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_misses_and_repeats_nothing_while_nodes_die() {
    let mut lab = Lab::start(Store::Embedded).await;
    let nodes = lab.cluster.layout().nodes.clone();
    let all = lab.client(&nodes);
    let begin = Revision(all.state().await.unwrap().revision);
    let mut messages = all.watch(Some(begin)).await.unwrap();
    let mut seen = Vec::new();
    let upstream = lab.cluster.layout().instances[0].name.clone();
    let mut last = begin;
    // The witness lives through it all, and remembers: it tells what really happened.
    let mortal: Vec<_> = nodes.iter().filter(|node| node.kind.serves()).cloned().collect();
    for round in 0..count("TWINSITE_WATCH_ROUNDS", 8) {
        let victim = Lab::node(&mortal[round % mortal.len()].name);
        lab.cluster.kill_all(std::slice::from_ref(&victim)).await.unwrap();
        last = all.set_drain(&upstream, round % 2 == 0, None).await.unwrap().max(last);
        collect(&mut messages, last, &mut seen).await;
        lab.cluster.start_process(&victim).unwrap();
        lab.wait("the node is back", SOON, |status| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["heard"] == true))
        });
    }
    last = all.set_drain(&upstream, true, None).await.unwrap().max(last);
    collect(&mut messages, last, &mut seen).await;
    let witness: Vec<_> = nodes.iter().filter(|node| !node.kind.serves()).cloned().collect();
    let truth = changes(&lab.client(&witness), begin, seen.last().unwrap().0).await;
    assert!(seen.is_sorted_by(|earlier, later| earlier.0 < later.0), "a revision came twice, or too late");
    assert_eq!(seen, truth);
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_answers_without_a_quorum_and_says_so_first() {
    let mut lab = Lab::start(Store::Embedded).await;
    let all = lab.cluster.layout().nodes.clone();
    let victims: Vec<_> = all.iter().skip(2).map(|node| Lab::node(&node.name)).collect();
    lab.cluster.kill_all(&victims).await.unwrap();
    let deadline = std::time::Instant::now() + SOON;
    let said = loop {
        let said = lab.ask(&["status"]);
        if said.code == 3 {
            break said;
        }
        assert!(std::time::Instant::now() < deadline, "{said:?}");
    };
    assert!(said.out.starts_with("NO QUORUM: "), "{}", said.out);
    assert!(said.out.lines().next().unwrap().contains(" s old"), "{}", said.out);
    let json = lab.ask(&["status", "--json"]);
    assert_eq!((json.code, &json.json()["quorum"]), (3, &serde_json::Value::Bool(false)), "{json:?}");
    let refused = lab.ask(&["pause", "--for", "1m"]);
    assert!(matches!(refused.code, 3 | 4), "a change without a quorum: {refused:?}");

    lab.cluster.kill_all(&all.iter().map(|node| Lab::node(&node.name)).collect::<Vec<_>>()).await.unwrap();
    let nobody = lab.ask(&["status"]);
    assert_eq!(nobody.code, 4, "{nobody:?}");
    lab.cluster.stop().await;
}

async fn channel(lab: &Lab, node: &NodePlace) -> Channel {
    let tls = lab.tls();
    let config = ClientTlsConfig::new()
        .identity(Identity::from_pem(&tls.cert, &tls.key))
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .domain_name(lab.domain());
    let address = format!("https://{}", lab.cluster.layout().api(node));
    Endpoint::from_shared(address).unwrap().tls_config(config).unwrap().connect().await.unwrap()
}

/// Whose answer was lost asks again with the same request id, and follows the move that it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_asked_for_twice_is_one_move() {
    let lab = Lab::start(Store::Embedded).await;
    lab.wait("all is well", SOON, |status| {
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["heard"] == true))
    });
    let nodes = lab.cluster.layout().nodes.clone();
    let request = v1::SwitchoverRequest {
        mutation: Some(v1::Mutation { request_id: "asked-twice".to_owned(), expected_revision: None }),
        r#move: Some(v1::Move::default()),
    };
    let deadline = std::time::Instant::now() + SOON;
    let (mut began, mut refusal) = (Vec::new(), None);
    while began.len() < 2 {
        assert!(std::time::Instant::now() < deadline, "nobody carries it out: {refusal:?}");
        for node in &nodes {
            let mut service = OperationServiceClient::new(channel(&lab, node).await);
            match service.switchover(request.clone()).await {
                Ok(answer) => began.push(answer.into_inner()),
                Err(status) => refusal = Some(status),
            }
        }
    }
    assert!(began.iter().all(|answer| answer.operation > 0), "{began:?}");
    assert_eq!(began[0], began[1]);
    let moves = lab.client(&nodes).operations().await.unwrap();
    let by_hand = moves.iter().filter(|one| one.kind() == v1::OperationKind::Switchover).count();
    assert_eq!(by_hand, 1, "{moves:?}");
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_every_service() {
    let lab = Lab::start(Store::Embedded).await;
    let node = lab.cluster.layout().nodes[0].clone();
    let mut reflection = ServerReflectionClient::new(channel(&lab, &node).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer: ServerReflectionResponse = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let mut services: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    services.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "twinsite.v1.ClusterService",
        "twinsite.v1.DrillService",
        "twinsite.v1.MaintenanceService",
        "twinsite.v1.MembershipService",
        "twinsite.v1.OperationService",
        "twinsite.v1.SessionService",
    ];
    assert_eq!(services, expected);
    lab.cluster.stop().await;
}
