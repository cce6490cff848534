//! Two processes never share a `DATA_DIR`: the second goes away and says why, the first does not notice.

use duelhub_testkit::is_ready;

use crate::kit::{Facts, HowToEnd, Site};

#[tokio::test]
async fn a_second_process_in_one_data_dir_goes_away_and_the_first_goes_on() {
    let site = Site::new();
    let (mut first, backend) = site.start_with_backend().await;
    let mut facts = Facts::default();
    facts.push(&backend, 77, 50, 100).await;
    let mut player = backend.player(77, 1).await;
    for _ in 0..3 {
        // Its ports are free ones, so it is the directory that is taken and nothing else.
        let second = site.try_start().await.expect_err("the directory is taken");
        assert_eq!(second.code, Some(1), "systemd should try again: {second}");
        let path = site.data_dir().display().to_string();
        assert!(second.output.contains("DATA_DIR"), "the variable is named: {second}");
        assert!(second.output.contains(&path), "the directory is named: {second}");
    }
    facts.push(&backend, 77, 50, 100).await;
    player.until_events(51).await;
    is_ready(&first).await;
    assert!(first.lives());
    facts.hold(&first).await.unwrap();
    first.end(HowToEnd::Kill).await;
    // A lock that outlives its process would have to be taken away by hand.
    let next = site.start().await;
    facts.hold(&next).await.unwrap();
    next.end(HowToEnd::Term).await;
}
