//! What an audience that nobody has is answered with.

use passavant_tests::world::{Expected, World};

#[tokio::test]
async fn an_audience_that_nobody_has_is_refused_and_nothing_else_happens() {
    let world = World::new().await;
    let tokens = world.sign_in().await;

    // The baseline: this very request succeeds.
    let ask = world.exchange(&tokens.id_token);
    assert_eq!(world.send(&ask).await.status, 200);

    // One thing changed.
    let unknown = ask.clone().set("audience", "https://nobody.example");
    let expected = Expected(400, "access_denied", "policy.audience_unknown");
    world.refuses(&world.idp_store, "an unknown audience", &unknown, expected).await;

    // What was refused used nothing up.
    assert_eq!(world.send(&ask).await.status, 200);
}
