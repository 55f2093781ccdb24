//! What holds of every implementation of the port.

use barnabas_broker::zookeeper::{
    CoordinationError as Error, CoordinationEvent, CreateMode, FencedWriteError, NodeEvent,
    Operation, Outcome, SessionState, Watch, write_as_controller,
};

use super::stores;
use super::subject::{Client, Ensemble, Memory, Real, in_time, next};

#[tokio::test]
async fn memory_conforms() {
    all_stories(&Memory::default()).await;
}

#[tokio::test]
async fn the_client_conforms() {
    all_stories(&Real::start()).await;
}

async fn all_stories(ensemble: &dyn Ensemble) {
    macro_rules! tell {
        ($($story:path),* $(,)?) => {$(
            // Shown when a story fails.
            eprintln!("{}", stringify!($story));
            ensemble.begin_story();
            $story(ensemble).await;
        )*};
    }
    tell!(
        data_and_versions,
        null_is_not_empty,
        refusals,
        transactions,
        sequences,
        data_watches,
        child_watches,
        batches_keep_their_order,
        many_reads,
        ephemeral_nodes,
        recursive_creation,
        connection_loss,
        lost_reply,
        watches_over_a_lost_connection,
        expiry,
        fenced_writes,
        closing,
        stores::registration,
        stores::registration_after_expiry,
        stores::registration_of_a_dead_predecessor,
        stores::registration_while_occupied,
        stores::endpoint_clash,
        stores::cluster_and_broker_ids,
        stores::configurations,
        stores::quota_configurations_go_when_empty,
        stores::configuration_changes_are_followed,
        stores::topics,
    );
}

async fn create(client: &Client, path: &str, data: &str) {
    let data = Some(data.as_bytes().to_vec());
    let created = client
        .coordination
        .create(path, data, CreateMode::Persistent);
    assert_eq!(created.await, Ok(path.to_owned()));
}

async fn exists(client: &Client, path: &str) -> bool {
    client
        .coordination
        .exists(path, Watch::No)
        .await
        .unwrap()
        .is_some()
}

async fn data_and_versions(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/a", "1").await;
    let (data, first) = zk.get("/a", Watch::No).await.unwrap().unwrap();
    assert_eq!(data, b"1");
    assert_eq!(
        (
            first.version,
            first.cversion,
            first.num_children,
            first.data_length
        ),
        (0, 0, 0, 1)
    );
    assert_eq!(
        (first.mzxid, first.pzxid, first.ephemeral_owner),
        (first.czxid, first.czxid, 0)
    );
    let second = zk.set("/a", Some(b"22".to_vec()), Some(0)).await.unwrap();
    assert_eq!(
        (second.version, second.czxid, second.data_length),
        (1, first.czxid, 2)
    );
    assert!(second.mzxid > first.mzxid);
    let third = zk.set("/a", None, None).await.unwrap();
    assert_eq!(third.version, 2);
    create(&client, "/a/b", "").await;
    create(&client, "/a/c", "").await;
    zk.delete("/a/b", Some(0)).await.unwrap();
    let parent = zk.exists("/a", Watch::No).await.unwrap().unwrap();
    assert_eq!(
        (parent.version, parent.cversion, parent.num_children),
        (2, 3, 1)
    );
    assert!(parent.pzxid > third.mzxid);
    assert_eq!(zk.children("/a", Watch::No).await, Ok(vec!["c".to_owned()]));
    assert_eq!(zk.get("/none", Watch::No).await, Ok(None));
    assert_eq!(zk.children("/none", Watch::No).await, Ok(vec![]));
    assert_eq!(zk.exists("/none", Watch::No).await, Ok(None));
    zk.delete("/a/c", None).await.unwrap();
    zk.delete("/a", None).await.unwrap();
    create(&client, "/a", "").await;
    let again = zk.exists("/a", Watch::No).await.unwrap().unwrap();
    assert_eq!((again.version, again.cversion), (0, 0));
    assert!(again.czxid > first.czxid);
}

async fn null_is_not_empty(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let some = || Some(b"x".to_vec());
    let batch = vec![
        Operation::create("/null", None),
        Operation::create("/null/empty", Vec::new()),
        Operation::create("/null/data", some()),
        Operation::create_sequential("/null/data/s-", None),
        Operation::create("/set-null", some()),
        Operation::set("/set-null", None),
        Operation::set("/null/data", Vec::new()),
        Operation::Multi(vec![
            Operation::check("/null", 0),
            Operation::create("/multi", None),
            Operation::create("/multi/data", some()),
            Operation::set_if("/multi/data", None, 0),
        ]),
    ];
    let results = client.coordination.submit(batch).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let empty = || Some(Vec::new());
    let expected = [
        ("/null", None),
        ("/null/empty", empty()),
        ("/null/data", empty()),
        ("/null/data/s-0000000000", None),
        ("/set-null", None),
        ("/multi", None),
        ("/multi/data", None),
    ];
    for (path, data) in expected {
        assert_eq!(ensemble.data_at(path).await, data, "{path}");
    }
    let failing = vec![Operation::create("/x", None), Operation::check("/null", 7)];
    let results = client.coordination.multi(failing).await;
    assert_eq!(
        results,
        Ok(vec![Err(Error::RolledBack), Err(Error::BadVersion)])
    );
}

async fn refusals(ensemble: &dyn Ensemble) {
    use Error::{BadVersion, NoNode, NodeExists, NotEmpty};
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/a", "").await;
    create(&client, "/a/b", "").await;
    let batch = vec![
        Operation::create("/a", None),
        Operation::create("/none/b", None),
        Operation::set_if("/a", None, 3),
        Operation::set("/none", None),
        Operation::delete("/a"),
        Operation::delete("/none"),
        Operation::delete_if("/a/b", 7),
        Operation::get("/none"),
        Operation::children("/none"),
    ];
    let errors: Vec<_> = zk
        .submit(batch)
        .await
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    let expected = [
        NodeExists, NoNode, BadVersion, NoNode, NotEmpty, NoNode, BadVersion, NoNode, NoNode,
    ];
    assert_eq!(errors, expected);
    let ephemeral = vec![
        Operation::create_ephemeral("/e", None),
        Operation::create("/e/x", None),
    ];
    let results = zk.submit(ephemeral).await;
    assert_eq!(results[1], Err(Error::NoChildrenForEphemerals));
    let bad = zk
        .run(Operation::Check {
            path: "/a".into(),
            version: 0,
        })
        .await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
    let bad = zk.multi(vec![Operation::get("/a")]).await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
}

async fn transactions(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/a", "").await;
    let results = zk.multi(vec![
        Operation::check("/a", 0),
        Operation::create("/a/b", None),
        Operation::set_if("/a/b", b"x".to_vec(), 0),
        Operation::create_sequential("/a/s-", None),
        Operation::set("/a", b"y".to_vec()),
        Operation::delete("/a/s-0000000001"),
    ]);
    let results: Vec<_> = results
        .await
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(results[0], Outcome::Checked);
    assert_eq!(
        results[1],
        Outcome::Created {
            path: "/a/b".into()
        }
    );
    assert_eq!(
        results[3],
        Outcome::Created {
            path: "/a/s-0000000001".into()
        }
    );
    assert_eq!(results[5], Outcome::Deleted);
    let (Outcome::Set(inner), Outcome::Set(outer)) = (&results[2], &results[4]) else {
        panic!("{results:?}");
    };
    // Registration relies on it: the stat of the set tells the transaction that created the node.
    assert_eq!(
        (inner.version, inner.czxid, inner.mzxid),
        (1, outer.mzxid, outer.mzxid)
    );

    let failing = vec![
        Operation::set("/a", b"z".to_vec()),
        Operation::create("/a/c", None),
        Operation::delete("/a/b"),
        Operation::check("/a/none", 0),
        Operation::create("/a/d", None),
    ];
    let results = zk.multi(failing).await.unwrap();
    let undone = || Err(Error::RolledBack);
    let expected = [
        undone(),
        undone(),
        undone(),
        Err(Error::NoNode),
        Err(Error::RuntimeInconsistency),
    ];
    assert_eq!(results, expected);
    let (data, stat) = zk.get("/a", Watch::No).await.unwrap().unwrap();
    assert_eq!(
        (data.as_slice(), stat.version, stat.num_children),
        (b"y".as_slice(), 1, 1)
    );
    assert!(exists(&client, "/a/b").await && !exists(&client, "/a/c").await);
    let empty = zk.multi(Vec::new()).await;
    assert_eq!(empty, Ok(vec![]));
}

async fn sequences(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/q", "").await;
    let mode = CreateMode::PersistentSequential;
    for number in 0..3 {
        let path = zk.create("/q/n_", None, mode).await.unwrap();
        assert_eq!(path, format!("/q/n_{number:010}"));
        zk.delete(&path, None).await.unwrap();
    }
    create(&client, "/q/other", "").await;
    let path = zk.create("/q/m_", None, mode).await;
    assert_eq!(path.as_deref(), Ok("/q/m_0000000004"));
}

fn node(event: CoordinationEvent) -> (String, NodeEvent) {
    match event {
        CoordinationEvent::Node { path, event } => (path, event),
        other => panic!("{other:?}"),
    }
}

async fn data_watches(ensemble: &dyn Ensemble) {
    let (watcher, writer) = (ensemble.connect().await, ensemble.connect().await);
    let zk = &watcher.coordination;
    let mut events = zk.subscribe();
    let mut other = writer.coordination.subscribe();
    assert_eq!(zk.exists("/w", Watch::Once).await, Ok(None));
    // Leaves no watch: there is no node.
    assert_eq!(zk.get("/w2", Watch::Once).await, Ok(None));
    create(&writer, "/w2", "").await;
    create(&writer, "/w", "").await;
    assert_eq!(
        node(next(&mut events).await),
        ("/w".into(), NodeEvent::Created)
    );
    // Fired once, it is gone.
    writer.coordination.set("/w", None, None).await.unwrap();
    zk.get("/w", Watch::Once).await.unwrap();
    writer.coordination.set("/w", None, None).await.unwrap();
    assert_eq!(
        node(next(&mut events).await),
        ("/w".into(), NodeEvent::DataChanged)
    );
    // Two reads leave one watch.
    zk.get("/w", Watch::Once).await.unwrap();
    zk.exists("/w", Watch::Once).await.unwrap();
    let failing = vec![Operation::delete("/w"), Operation::check("/w2", 9)];
    writer.coordination.multi(failing).await.unwrap();
    writer
        .coordination
        .multi(vec![Operation::delete("/w")])
        .await
        .unwrap();
    assert_eq!(
        node(next(&mut events).await),
        ("/w".into(), NodeEvent::Deleted)
    );
    zk.exists("/w", Watch::No).await.unwrap();
    assert!(events.try_recv().is_err(), "nothing else happened");
    assert!(
        other.try_recv().is_err(),
        "watches are of the session that set them"
    );
}

async fn child_watches(ensemble: &dyn Ensemble) {
    let (watcher, writer) = (ensemble.connect().await, ensemble.connect().await);
    let zk = &watcher.coordination;
    let mut events = zk.subscribe();
    create(&writer, "/p", "").await;
    zk.children("/p", Watch::Once).await.unwrap();
    writer.coordination.set("/p", None, None).await.unwrap();
    create(&writer, "/p/a", "").await;
    assert_eq!(
        node(next(&mut events).await),
        ("/p".into(), NodeEvent::ChildrenChanged)
    );
    zk.children("/p", Watch::Once).await.unwrap();
    writer.coordination.delete("/p/a", None).await.unwrap();
    assert_eq!(
        node(next(&mut events).await),
        ("/p".into(), NodeEvent::ChildrenChanged)
    );
    zk.children("/p", Watch::Once).await.unwrap();
    writer.coordination.delete("/p", None).await.unwrap();
    assert_eq!(
        node(next(&mut events).await),
        ("/p".into(), NodeEvent::Deleted)
    );
    zk.exists("/p", Watch::No).await.unwrap();
    assert!(events.try_recv().is_err());
}

async fn batches_keep_their_order(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    let mut batch = vec![Operation::create("/n", None)];
    batch.extend((0..200).map(|version| Operation::set_if("/n", vec![], version)));
    let first = zk.submit(batch);
    let second = zk.submit(vec![Operation::exists("/n"), Operation::delete("/n")]);
    let second = second.await;
    let Ok(Outcome::Exists(Some(stat))) = second[0] else {
        panic!("{second:?}");
    };
    assert_eq!(stat.version, 200);
    assert!(first.await.iter().all(Result::is_ok));
    // Work that nobody waits for is done all the same.
    drop(zk.submit(vec![Operation::create("/left", None)]));
    assert!(exists(&client, "/left").await);
    assert_eq!(zk.submit(Vec::new()).await, []);
}

/// Whether or not they share requests: each is answered for itself, in its place among what changes.
async fn many_reads(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    let number = |index: usize| format!("/{index}");
    let created = (0..250).filter(|index| index % 10 != 3);
    let created = created.map(|index| Operation::create(number(index), number(index).into_bytes()));
    let created = zk.submit(created.collect()).await;
    assert!(created.iter().all(Result::is_ok));
    let reads = || (0..250).map(|index| Operation::get(number(index)));
    let mut batch: Vec<Operation> = reads().collect();
    batch.push(Operation::set("/7", b"new".to_vec()));
    batch.extend(reads());
    client.cut_off().await;
    let waiting = zk.submit(batch);
    client.reconnect().await;
    let results = in_time(waiting).await;
    assert_eq!(results.len(), 501);
    for (index, result) in results
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 250)
    {
        let is_later = index > 250;
        let of = if is_later { index - 251 } else { index };
        let expected = match of {
            7 if is_later => Some(b"new".to_vec()),
            of if of % 10 == 3 => None,
            of => Some(number(of).into_bytes()),
        };
        match (result, expected) {
            (Ok(Outcome::Data { data, .. }), expected @ Some(_)) => assert_eq!(*data, expected),
            (Err(Error::NoNode), None) => {}
            (result, expected) => panic!("{index}: {result:?}, not {expected:?}"),
        }
    }
}

async fn ephemeral_nodes(ensemble: &dyn Ensemble) {
    let (owner, other) = (ensemble.connect().await, ensemble.connect().await);
    let mode = CreateMode::Ephemeral;
    owner.coordination.create("/e", None, mode).await.unwrap();
    let stat = other
        .coordination
        .exists("/e", Watch::Once)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stat.ephemeral_owner, owner.coordination.session_id());
    assert_ne!(
        owner.coordination.session_id(),
        other.coordination.session_id()
    );
    let mut events = other.coordination.subscribe();
    owner.coordination.close().await;
    assert_eq!(
        node(next(&mut events).await),
        ("/e".into(), NodeEvent::Deleted)
    );
    let refused = owner.coordination.exists("/e", Watch::No).await;
    assert_eq!(refused, Err(Error::Closed));
}

async fn recursive_creation(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    let data = Some(b"d".to_vec());
    assert_eq!(zk.create_recursive("/x/y/z", data.clone()).await, Ok(()));
    assert_eq!(
        zk.create_recursive("/x/y/z", data.clone()).await,
        Err(Error::NodeExists)
    );
    assert_eq!(zk.create_recursive("/x/y/w/v", data).await, Ok(()));
    let (data, _) = zk.get("/x/y/w/v", Watch::No).await.unwrap().unwrap();
    assert_eq!(data, b"d");
    assert_eq!(ensemble.data_at("/x/y").await, None, "parents are null");
}

async fn connection_loss(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    let session = zk.session_id();
    let mode = CreateMode::Ephemeral;
    zk.create("/e", None, mode).await.unwrap();
    for round in 0..3 {
        client.cut_off().await;
        let creations = (0..50).map(|i| Operation::create(format!("/{round}-{i}"), None));
        let waiting = zk.submit(creations.collect());
        client.reconnect().await;
        assert!(in_time(waiting).await.iter().all(Result::is_ok));
    }
    assert_eq!(zk.session_id(), session);
    assert!(exists(&client, "/e").await && exists(&client, "/2-49").await);
}

async fn lost_reply(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/v", "").await;
    client.lose_next_reply();
    let data = || Some(b"x".to_vec());
    let created = zk.create("/twice", data(), CreateMode::Persistent).await;
    assert_eq!(created, Err(Error::NodeExists));
    client.lose_next_reply();
    let set = zk.set("/v", data(), Some(0)).await;
    assert_eq!(set, Err(Error::BadVersion));
}

async fn watches_over_a_lost_connection(ensemble: &dyn Ensemble) {
    let (watcher, writer) = (ensemble.connect().await, ensemble.connect().await);
    let zk = &watcher.coordination;
    create(&watcher, "/kept", "").await;
    create(&watcher, "/changed", "").await;
    create(&watcher, "/parent", "").await;
    zk.get("/kept", Watch::Once).await.unwrap();
    zk.get("/changed", Watch::Once).await.unwrap();
    zk.exists("/new", Watch::Once).await.unwrap();
    zk.children("/parent", Watch::Once).await.unwrap();
    let mut events = zk.subscribe();
    watcher.cut_off().await;
    writer
        .coordination
        .set("/changed", None, None)
        .await
        .unwrap();
    create(&writer, "/new", "").await;
    create(&writer, "/parent/child", "").await;
    watcher.reconnect().await;
    let mut missed = Vec::new();
    for _ in 0..3 {
        missed.push(node(next(&mut events).await));
    }
    missed.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("/changed".to_owned(), NodeEvent::DataChanged),
        ("/new".to_owned(), NodeEvent::Created),
        ("/parent".to_owned(), NodeEvent::ChildrenChanged),
    ];
    assert_eq!(missed, expected);
    writer.coordination.delete("/kept", None).await.unwrap();
    assert_eq!(
        node(next(&mut events).await),
        ("/kept".into(), NodeEvent::Deleted)
    );
}

async fn expiry(ensemble: &dyn Ensemble) {
    let (client, other) = (ensemble.connect().await, ensemble.connect().await);
    let zk = &client.coordination;
    let old_session = zk.session_id();
    zk.create("/e", None, CreateMode::Ephemeral).await.unwrap();
    zk.get("/e", Watch::Once).await.unwrap();
    let mut events = zk.subscribe();
    let mut second = zk.subscribe();
    let story = async {
        let CoordinationEvent::SessionExpired(hold) = next(&mut events).await else {
            panic!("the session expired");
        };
        let clone = hold.clone();
        let CoordinationEvent::SessionExpired(_) = next(&mut second).await else {
            panic!("everybody is told");
        };
        assert_eq!(*zk.session_state().borrow(), SessionState::Expired);
        let refused = zk.exists("/e", Watch::No).await;
        assert_eq!(refused, Err(Error::SessionExpired));
        assert!(!exists(&other, "/e").await);
        drop(hold);
        // One clone is enough to keep the next session from beginning.
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), events.recv());
        assert!(early.await.is_err());
        assert_eq!(zk.session_id(), old_session);
        drop(clone);
        let event = next(&mut events).await;
        assert!(
            matches!(event, CoordinationEvent::SessionEstablished),
            "{event:?}"
        );
        assert_ne!(zk.session_id(), old_session);
        zk.create("/e", None, CreateMode::Ephemeral).await.unwrap();
        zk.exists("/e", Watch::No).await.unwrap();
        // Watches of the old session are gone with it.
        assert!(events.try_recv().is_err());
    };
    futures::join!(client.expire(), story);
}

async fn fenced_writes(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    let zk = &client.coordination;
    create(&client, "/controller_epoch", "0").await;
    zk.set("/controller_epoch", Some(b"1".to_vec()), None)
        .await
        .unwrap();
    create(&client, "/t", "").await;
    let few = vec![
        Operation::create("/t/a", None),
        Operation::create("/t/a", None),
    ];
    let results = write_as_controller(zk, 1, few).await.unwrap();
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(Error::NodeExists));
    // Many share transactions; the failure of some is not that of the others.
    let many = (0..500).map(|i| Operation::create(format!("/t/{}", i % 450), None));
    let results = write_as_controller(zk, 1, many.collect()).await.unwrap();
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!((results.len(), failed), (500, 50));
    assert!(
        results[450..]
            .iter()
            .all(|result| *result == Err(Error::NodeExists))
    );
    assert_eq!(zk.children("/t", Watch::No).await.unwrap().len(), 451);
    assert_eq!(write_as_controller(zk, 1, Vec::new()).await, Ok(vec![]));
    for count in [1, 200] {
        let late = (0..count).map(|i| Operation::create(format!("/t/late-{i}"), None));
        let moved = write_as_controller(zk, 0, late.collect()).await;
        assert_eq!(moved, Err(FencedWriteError::ControllerMoved));
    }
    assert!(!exists(&client, "/t/late-0").await);
}

async fn closing(ensemble: &dyn Ensemble) {
    let client = ensemble.connect().await;
    client.coordination.close().await;
    client.coordination.close().await;
    assert_eq!(
        *client.coordination.session_state().borrow(),
        SessionState::Closed
    );
    let refused = client
        .coordination
        .create("/x", None, CreateMode::Persistent)
        .await;
    assert_eq!(refused, Err(Error::Closed));
}
