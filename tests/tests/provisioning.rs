//! Provisioning by an upstream (SCIM 2.0): as Entra and Okta document their requests, and as somebody
//! who means harm would send them. No live tenant was asked.

use passavant_admin::types::{
    Connections, Groups, NewPersonLink, NewProvisioningToken, Upstreams, Users,
};
use passavant_store::AuditFilter;
use passavant_tests::{
    outsider::Browser,
    upstream::FakeUpstream,
    world::{Ask, Reply, World},
};
use reqwest::Method;
use serde_json::{Value, json};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// An upstream that provisions.
struct Provisioner<'a> {
    world: &'a World,
    base: String,
    token: String,
}

impl Provisioner<'_> {
    async fn of<'a>(world: &'a World, upstream: &str) -> Provisioner<'a> {
        let new = NewProvisioningToken::default();
        let made = world.idp_admin().add_provisioning_token(upstream, &new).await.unwrap();
        Provisioner { world, base: made.provisioning_url, token: made.token.unwrap() }
    }

    fn request(&self, method: Method, path: &str) -> Ask {
        Ask { url: format!("{}{path}", self.base), form: Vec::new(), headers: Vec::new(), method }
            .header("authorization", &format!("Bearer {}", self.token))
            .header("content-type", "application/scim+json")
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.world.send_body(&self.request(method, path), body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &Value::Null).await
    }

    async fn add(&self, path: &str, body: &Value) -> Value {
        let reply = self.send(Method::POST, path, body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(reply.header("location"), reply.json["meta"]["location"]);
        reply.json
    }

    async fn patch(&self, path: &str, operations: Value) -> Reply {
        let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                          "Operations": operations});
        self.send(Method::PATCH, path, &body).await
    }

    async fn patched(&self, path: &str, operations: Value) -> Value {
        let reply = self.patch(path, operations).await;
        assert!(matches!(reply.status, 200 | 204), "{}", reply.text);
        self.get(path).await.json
    }

    /// One person with this user name.
    async fn person(&self, name: &str) -> Value {
        self.add("/Users", &json!({"schemas": [USER], "userName": name, "active": true})).await
    }

    async fn group(&self, name: &str) -> Value {
        self.add("/Groups", &json!({"schemas": [GROUP], "displayName": name})).await
    }

    async fn members(&self, group: &Value) -> Vec<String> {
        let held = self.get(&at("/Groups", group)).await.json;
        let members = held["members"].as_array().cloned().unwrap_or_default();
        members.iter().map(|member| member["value"].as_str().unwrap().to_owned()).collect()
    }
}

fn at(path: &str, resource: &Value) -> String {
    format!("{path}/{}", resource["id"].as_str().unwrap())
}

fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

fn refused(reply: &Reply, status: u16, scim_type: &str) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!(reply.json["status"], status.to_string(), "{}", reply.text);
    assert_eq!(reply.str("scimType"), scim_type, "{}", reply.text);
    assert_eq!(
        reply.json["schemas"],
        json!(["urn:ietf:params:scim:api:messages:2.0:Error"]),
        "{}",
        reply.text
    );
    assert!(!reply.str("detail").is_empty());
    assert_eq!(reply.header("content-type"), "application/scim+json");
}

async fn company(more: Value) -> (World, FakeUpstream) {
    let world = World::new().await;
    let fake = FakeUpstream::start(&world, "").await;
    let mut said = json!({"domains": ["acme.example"], "just_in_time": false});
    for (member, value) in more.as_object().unwrap() {
        said[member] = value.clone();
    }
    world.add_upstream("corp", &fake, said).await;
    (world, fake)
}

async fn events(world: &World) -> Vec<String> {
    let filter = AuditFilter { limit: 100, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    rows.into_iter().map(|row| row.event).collect()
}

async fn held_groups(world: &World, person: &Value) -> Vec<String> {
    let held = world.idp_admin().show::<Users>(&id(person)).await.unwrap();
    held.groups.into_iter().collect()
}

everywhere!(
    entra_provisions_as_its_documentation_says,
    okta_provisions_as_its_documentation_says,
    who_is_switched_off_loses_everything_in_the_same_moment_and_gets_nothing_of_it_back,
    an_external_id_identifies_nobody_unless_an_administrator_says_so_and_then_once,
    an_upstream_sees_and_changes_its_own_people_and_groups_alone,
    a_group_may_stand_for_one_that_is_here_and_moves_its_own_people_alone,
    what_is_not_a_provisioners_is_refused_and_what_is_wrong_is_named,
    a_version_that_is_not_the_present_one_changes_nothing,
    several_operations_in_one_request_are_done_in_order_and_within_limits,
    a_large_group_moves_as_a_whole,
    an_address_of_another_person_links_nobody,
    long_lists_cost_what_they_are_long,
    changes_of_a_large_group_at_once_end_and_the_later_one_holds,
    what_an_administrator_takes_back_from_a_provisioner_stays_taken_back,
    what_is_written_in_another_way_is_the_same_or_is_refused
);

mod cases {
    use super::*;

    /// Entra, by its page "Develop and plan provisioning for a SCIM endpoint", without the flag
    /// `aadOptscim062020`.
    #[allow(clippy::too_many_lines, reason = "one tenant, request by request")]
    pub(super) async fn entra_provisions_as_its_documentation_says() {
        let (world, _fake) = company(json!({})).await;
        let entra = Provisioner::of(&world, "corp").await;
        // The connection test: nobody is not an error.
        let filter = "/Users?filter=userName%20eq%20%2201234567-89ab-cdef-0123-456789abcdef%22";
        let nobody = entra.get(filter).await;
        assert_eq!(nobody.status, 200, "{}", nobody.text);
        assert_eq!(
            (&nobody.json["totalResults"], &nobody.json["Resources"]),
            (&json!(0), &json!([]))
        );
        let new = json!({
            "schemas": [USER, ENTERPRISE],
            "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef", "userName": "Test_User_1@Acme.example",
            "active": true, "addresses": null, "phoneNumbers": null, "title": null, "roles": [],
            "emails": [{"primary": true, "type": "work", "value": "test1@acme.example"}],
            "meta": {"resourceType": "User"},
            "name": {"formatted": "given family", "familyName": "family", "givenName": "given"},
        });
        let person = entra.add("/Users", &new).await;
        assert_eq!(person["userName"], "Test_User_1@Acme.example", "spelled as it was sent");
        assert_eq!(person["name"]["formatted"], "given family");
        assert_eq!(person["emails"], new["emails"]);
        let held = world.idp_admin().show::<Users>(&id(&person)).await.unwrap();
        assert_eq!(held.username, "test_user_1@acme.example");
        assert_eq!(held.email.as_deref(), Some("test1@acme.example"));
        assert!(held.email_verified, "the upstream speaks for this domain");
        // Found by what it is matched with: in any case, unquoted, by the address.
        for filter in [
            "userName eq \"TEST_user_1@acme.example\"",
            "externalId eq 0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
            "emails[type eq \"work\"].value eq \"test1@acme.example\"",
        ] {
            let path: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("filter", filter)
                .finish();
            let found = entra.get(&format!("/Users?{path}")).await;
            assert_eq!(found.json["totalResults"], 1, "{filter}: {}", found.text);
        }
        let path = at("/Users", &person);
        let changed = entra
        .patched(&path, json!([
            {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "other@acme.example"},
            {"op": "Replace", "path": "name.familyName", "value": "changed"},
            {"op": "Add", "path": format!("{ENTERPRISE}:department"), "value": "R&D"},
            {"op": "Add", "path": "manager", "value": [{"$ref": "http://x/Users/m", "value": "m"}]},
            {"op": "Add", "path": "nickName", "value": "Babs"},
        ]))
        .await;
        assert_eq!(changed["emails"][0]["value"], "other@acme.example");
        assert_eq!(changed["name"]["familyName"], "changed");
        assert_eq!(changed["name"]["givenName"], "given");
        assert_eq!(changed[ENTERPRISE]["department"], "R&D");
        assert_eq!(changed["nickName"], "Babs");
        // With the flag: no path, names with dots and schemas as members.
        let changed = entra
            .patched(
                &path,
                json!([
                    {"op": "replace", "value": {"displayName": "Bjfe", "name.givenName": "Kamia",
                        format!("{ENTERPRISE}:employeeNumber"): "0042"}},
                ]),
            )
            .await;
        assert_eq!(changed["displayName"], "Bjfe");
        assert_eq!(changed["name"]["givenName"], "Kamia");
        assert_eq!(changed["name"]["familyName"], "changed", "only what is said changes");
        assert_eq!(changed[ENTERPRISE]["employeeNumber"], "0042");
        assert_eq!(changed[ENTERPRISE]["department"], "R&D");
        // A value that a filter does not find is made; an empty one clears.
        let cleared = entra
            .patched(
                &path,
                json!([{"op": "replace", "path": "emails[type eq \"work\"].value", "value": ""}]),
            )
            .await;
        assert!(cleared.get("emails").is_none(), "{cleared}");
        let again = json!([{"op": "Add", "path": "emails[type eq \"work\"].value", "value": "a@acme.example"}]);
        let made = entra.patched(&path, again).await;
        assert_eq!(made["emails"], json!([{"type": "work", "value": "a@acme.example"}]));
        // Disabled in each of its spellings, and enabled again.
        for (off, on) in [(json!("False"), json!("True")), (json!(false), json!(true))] {
            let set = |value: &Value| json!([{"op": "Replace", "path": "active", "value": value}]);
            assert_eq!(entra.patched(&path, set(&off)).await["active"], false);
            let found = entra.get("/Users?filter=active%20eq%20false").await;
            assert_eq!(found.json["totalResults"], 1, "whoever is inactive stays findable");
            assert_eq!(entra.patched(&path, set(&on)).await["active"], true);
        }
        // Groups: found without members, made empty with a schema of its own, changed by 204.
        let nobody = entra
            .get("/Groups?excludedAttributes=members&filter=displayName%20eq%20%22Sales%22")
            .await;
        assert_eq!(nobody.json["totalResults"], 0);
        let group = entra
            .add(
                "/Groups",
                &json!({"schemas": [GROUP,
            "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
            "externalId": "8aa1a0c0", "displayName": "Sales", "meta": {"resourceType": "Group"}}),
            )
            .await;
        let (second, third) = (entra.person("b").await, entra.person("c").await);
        let at_group = at("/Groups", &group);
        for one in [&person, &second, &third] {
            let add = json!([{"op": "Add", "path": "members", "value": [{"$ref": null, "value": id(one)}]}]);
            assert_eq!(entra.patch(&at_group, add).await.status, 204);
        }
        assert_eq!(entra.members(&group).await.len(), 3);
        let flag_off = json!([{"op": "Remove", "path": "members", "value": [{"$ref": null, "value": id(&second)}]}]);
        assert_eq!(entra.patch(&at_group, flag_off).await.status, 204);
        assert_eq!(entra.members(&group).await.len(), 2, "only the one that was named goes");
        let flag_on =
            json!([{"op": "remove", "path": format!("members[value eq \"{}\"]", id(&third))}]);
        assert_eq!(entra.patch(&at_group, flag_on).await.status, 204);
        assert_eq!(entra.members(&group).await, [id(&person)]);
        let renamed = json!([{"op": "Replace", "path": "displayName", "value": "Sales EMEA"}]);
        assert_eq!(entra.patched(&at_group, renamed).await["displayName"], "Sales EMEA");
        let shown = entra.get(&format!("{at_group}?excludedAttributes=members")).await;
        assert!(shown.json.get("members").is_none(), "{}", shown.text);
        // Policy goes by the name that it had when it was made.
        assert!(held_groups(&world, &person).await.contains(&"Sales".to_owned()));
        for (path, of) in [("/Groups", &group), ("/Users", &person)] {
            let gone = entra.send(Method::DELETE, &at(path, of), &Value::Null).await;
            assert_eq!(gone.status, 204, "{}", gone.text);
            refused(&entra.get(&at(path, of)).await, 404, "");
        }
    }

    /// Okta, by its SCIM 2.0 reference and its specification suite.
    pub(super) async fn okta_provisions_as_its_documentation_says() {
        let (world, _fake) = company(json!({})).await;
        let okta = Provisioner::of(&world, "corp").await;
        let found = okta
            .get("/Users?filter=userName%20eq%20%22a%40acme.example%22&startIndex=1&count=100")
            .await;
        assert_eq!(
            (&found.json["totalResults"], &found.json["startIndex"], &found.json["itemsPerPage"]),
            (&json!(0), &json!(1), &json!(0))
        );
        let new = json!({"schemas": [USER], "userName": "a@acme.example",
        "name": {"givenName": "A", "familyName": "B"},
        "emails": [{"primary": true, "value": "a@acme.example", "type": "work"}],
        "displayName": "A B", "locale": "en-US", "externalId": "00ujl29u0le5T6Aj10h7",
        "groups": [], "password": "1mz050nq", "active": true});
        let person = okta.add("/Users", &new).await;
        assert_eq!(person["locale"], "en-US");
        let text = person.to_string();
        assert!(!text.contains("1mz050nq") && person.get("password").is_none(), "{text}");
        assert!(!world.idp_admin().show::<Users>(&id(&person)).await.unwrap().has_password);
        refused(&okta.send(Method::POST, "/Users", &new).await, 409, "uniqueness");
        let capitals = okta.get("/Users?filter=userName%20eq%20%22A%40ACME.EXAMPLE%22").await;
        assert_eq!(capitals.json["totalResults"], 1);
        // Wizard applications replace the whole person, with what they read before.
        let path = at("/Users", &person);
        let mut whole = okta.get(&path).await.json;
        whole["name"]["givenName"] = "Changed".into();
        let replaced = okta.send(Method::PUT, &path, &whole).await;
        assert_eq!(replaced.status, 200, "{}", replaced.text);
        assert_eq!(replaced.json["name"]["givenName"], "Changed");
        whole["active"] = false.into();
        assert_eq!(okta.send(Method::PUT, &path, &whole).await.json["active"], false);
        // A replacement that does not mention it switches nobody on.
        whole.as_object_mut().unwrap().remove("active");
        assert_eq!(okta.send(Method::PUT, &path, &whole).await.json["active"], false);
        let active = |on: bool| json!([{"op": "replace", "value": {"active": on}}]);
        assert_eq!(okta.patched(&path, active(true)).await["active"], true);
        assert_eq!(okta.patched(&path, active(false)).await["active"], false);
        assert_eq!(okta.patched(&path, active(true)).await["active"], true);
        let password = json!([{"op": "replace", "value": {"password": "t1meMa$heen"}}]);
        assert_eq!(okta.patch(&path, password).await.status, 200);
        // Groups are pushed, renamed without a path, and filled in each way.
        let group = okta
            .add(
                "/Groups",
                &json!({"schemas": [GROUP], "displayName": "Test SCIMv2", "members": []}),
            )
            .await;
        let at_group = at("/Groups", &group);
        let renamed =
            json!([{"op": "replace", "value": {"id": id(&group), "displayName": "Renamed"}}]);
        assert_eq!(okta.patched(&at_group, renamed).await["displayName"], "Renamed");
        let other =
            json!([{"op": "replace", "value": {"id": "another", "displayName": "Renamed"}}]);
        refused(&okta.patch(&at_group, other).await, 400, "mutability");
        let second = okta.person("second").await;
        let swap = json!([
            {"op": "remove", "path": format!("members[value eq \"{}\"]", id(&person))},
            {"op": "add", "path": "members", "value": [{"value": id(&second), "display": "second"}]},
        ]);
        assert_eq!(okta.patch(&at_group, swap).await.status, 204);
        assert_eq!(okta.members(&group).await, [id(&second)]);
        let all = json!([{"op": "replace", "path": "members",
        "value": [{"value": id(&person), "display": "a"}, {"value": id(&second)}, {"value": "gone"}]}]);
        assert_eq!(okta.patch(&at_group, all).await.status, 204);
        assert_eq!(okta.members(&group).await.len(), 2, "one who is not known loses nobody else");
        let none = json!([{"op": "replace", "path": "members", "value": []}]);
        assert_eq!(okta.patch(&at_group, none).await.status, 204);
        assert!(okta.members(&group).await.is_empty());
        // The specification suite's last: a header that is no token.
        let ask = okta.request(Method::GET, "/Users").no_header("authorization");
        refused(
            &world.send_body(&ask.header("authorization", "non-token"), Vec::new()).await,
            401,
            "",
        );
    }

    pub(super) async fn who_is_switched_off_loses_everything_in_the_same_moment_and_gets_nothing_of_it_back()
     {
        let (world, fake) = company(json!({"external_id_is_subject": true})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let person = corp
            .add(
                "/Users",
                &json!({"schemas": [USER], "userName": "erin.there", "externalId": "erin-there",
            "emails": [{"value": "erin@acme.example"}]}),
            )
            .await;
        let group = corp.group("agents").await;
        let into = json!([{"op": "add", "path": "members", "value": [{"value": id(&person)}]}]);
        corp.patch(&at("/Groups", &group), into).await;
        world
            .idp_admin()
            .change::<Connections>(
                "agent-canvas",
                &serde_json::from_value(json!({"groups": ["agents"]})).unwrap(),
                None,
            )
            .await
            .unwrap();
        // The first sign-in finds the person whom provisioning added, by what the upstream calls them.
        let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let claims = passavant_tests::forge::Parts::of(tokens["id_token"].as_str().unwrap()).claims;
        assert_eq!(claims["sub"], id(&person));
        assert!(events(&world).await.contains(&"provision.linked".to_owned()));
        let exchange = || world.exchange(tokens["id_token"].as_str().unwrap());
        let granted = world.send(&exchange()).await;
        assert_eq!(granted.status, 200, "{}", granted.text);
        let path = at("/Users", &person);
        let active = |on: &str| json!([{"op": "Replace", "path": "active", "value": on}]);
        assert_eq!(corp.patch(&path, active("False")).await.status, 200);
        let after = world.send(&exchange()).await;
        assert_eq!(after.status, 400, "{}", after.text);
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
        ];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.str("error"), "invalid_grant", "{}", renewed.text);
        let refused_page = world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        assert_eq!(refused_page.status, 403);
        // An administrator does not overrule the directory, and is told so.
        let problem = world.idp_admin().switch::<Users>(&id(&person), true).await.unwrap_err();
        assert!(
            format!("{problem:?}").contains("switched off by the upstream `corp`"),
            "{problem:?}"
        );
        // Switched on again: nothing of before works, and the groups are as they were.
        assert_eq!(corp.patch(&path, active("True")).await.status, 200);
        assert_eq!(world.send(&exchange()).await.status, 400);
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.str("error"), "invalid_grant");
        assert_eq!(held_groups(&world, &person).await, ["agents"]);
        let again = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let granted = world.send(&world.exchange(again["id_token"].as_str().unwrap())).await;
        assert_eq!(granted.status, 200, "{}", granted.text);
        let told = events(&world).await;
        for event in
            ["provision.added", "provision.disabled", "provision.enabled", "provision.changed"]
        {
            assert!(told.contains(&event.to_owned()), "{event}: {told:?}");
        }
        // Whom an administrator switched off, the directory does not switch on.
        world.idp_admin().switch::<Users>(&id(&person), false).await.unwrap();
        assert_eq!(corp.patch(&path, active("False")).await.status, 200);
        assert_eq!(corp.patch(&path, active("True")).await.status, 200);
        assert!(world.idp_admin().show::<Users>(&id(&person)).await.unwrap().disabled);
        world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        world.idp_admin().switch::<Users>(&id(&person), true).await.unwrap();
        world.through(&mut Browser::default(), "corp", "").await.unwrap();
        // Deleted and made again under the same name: somebody else, with nothing.
        assert_eq!(corp.send(Method::DELETE, &path, &Value::Null).await.status, 204);
        let anew = corp.person("erin.there").await;
        assert_ne!(id(&anew), id(&person));
        assert!(held_groups(&world, &anew).await.is_empty());
        drop(fake);
    }

    pub(super) async fn an_external_id_identifies_nobody_unless_an_administrator_says_so_and_then_once()
     {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        for external in ["erin-there", "1", "erin-id", "erin@acme.example"] {
            let held = corp
                .add(
                    "/Users",
                    &json!({"schemas": [USER], "userName": format!("u-{external}"),
                "externalId": external}),
                )
                .await;
            assert_eq!(held["externalId"], external);
            assert_ne!(id(&held), external);
        }
        // By default a generic upstream's `externalId` is a text like any other.
        let page = world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        assert_eq!(page.status, 403);
        world
            .idp_admin()
            .change::<Upstreams>(
                "corp",
                &serde_json::from_value(json!({"external_id_is_subject": true})).unwrap(),
                None,
            )
            .await
            .unwrap();
        // Two with the same one are nobody.
        let twin = corp
            .add(
                "/Users",
                &json!({"schemas": [USER], "userName": "twin", "externalId": "erin-there"}),
            )
            .await;
        world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        corp.send(Method::DELETE, &at("/Users", &twin), &Value::Null).await;
        let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let claims = passavant_tests::forge::Parts::of(tokens["id_token"].as_str().unwrap()).claims;
        let linked =
            world.idp_admin().show::<Users>(claims["sub"].as_str().unwrap()).await.unwrap();
        assert_eq!(linked.username, "u-erin-there");
        // Another one later on moves nobody.
        let other =
            corp.get("/Users?filter=userName%20eq%20%22u-1%22").await.json["Resources"][0].clone();
        let steal = json!([{"op": "replace", "path": "externalId", "value": "erin-there"}]);
        corp.patch(&at("/Users", &other), steal).await;
        let again = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let again = passavant_tests::forge::Parts::of(again["id_token"].as_str().unwrap()).claims;
        assert_eq!(again["sub"], claims["sub"]);
    }

    pub(super) async fn an_upstream_sees_and_changes_its_own_people_and_groups_alone() {
        let (world, _fake) = company(json!({})).await;
        let other = FakeUpstream::start(&world, "").await;
        world.add_upstream("partner", &other, json!({"domains": ["partner.example"]})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let partner = Provisioner::of(&world, "partner").await;
        let theirs = corp.person("theirs").await;
        let group = corp.group("their group").await;
        // The token of one is none of the other, and says so before anything is read.
        let foreign =
            Provisioner { world: &world, base: partner.base.clone(), token: corp.token.clone() };
        for path in ["/Users", "/Users?filter=((((", "/Bulk"] {
            refused(&foreign.get(path).await, 401, "");
        }
        let big = json!({"x": "y".repeat(100_000)});
        refused(&foreign.send(Method::POST, "/Users", &big).await, 401, "");
        // What is not theirs does not exist.
        for (path, what) in [("/Users", &theirs), ("/Groups", &group)] {
            let path = at(path, what);
            refused(&partner.get(&path).await, 404, "");
            refused(&partner.send(Method::DELETE, &path, &Value::Null).await, 404, "");
            let off = json!([{"op": "replace", "path": "displayName", "value": "x"}]);
            refused(&partner.patch(&path, off).await, 404, "");
        }
        // Nor is a person who signs in by password, or was made by hand.
        let erin = partner.get("/Users/erin-id").await;
        refused(&erin, 404, "");
        let all = partner.get("/Users").await;
        assert_eq!(all.json["totalResults"], 0);
        // Names are taken all the same, and nobody is linked by one.
        for name in ["theirs", "ERIN"] {
            let reply = partner
                .send(Method::POST, "/Users", &json!({"schemas": [USER], "userName": name}))
                .await;
            refused(&reply, 409, "uniqueness");
        }
        for name in ["engineering", "their group"] {
            let reply = partner
                .send(Method::POST, "/Groups", &json!({"schemas": [GROUP], "displayName": name}))
                .await;
            refused(&reply, 409, "uniqueness");
        }
        // A member who is not theirs is passed over.
        let own = partner.group("own").await;
        let add = json!([{"op": "add", "path": "members", "value": [{"value": "erin-id"}, {"value": id(&theirs)}]}]);
        assert_eq!(partner.patch(&at("/Groups", &own), add).await.status, 204);
        assert!(partner.members(&own).await.is_empty());
        assert!(held_groups(&world, &theirs).await.is_empty());
        // Somebody who is linked and was provisioned by nobody is theirs.
        let link =
            NewPersonLink { user: "max".to_owned(), subject: "max-there".to_owned(), tenant: None };
        world.idp_admin().link_person("partner", &link).await.unwrap();
        assert_eq!(partner.get("/Users/max-id").await.json["userName"], "max");
        refused(&corp.get("/Users/max-id").await, 404, "");
        // Two upstreams are linked to one person: who provisions first keeps the other away.
        world.idp_admin().link_person("corp", &link).await.unwrap();
        let title = |title: &str| json!([{"op": "replace", "path": "title", "value": title}]);
        assert_eq!(corp.patch("/Users/max-id", title("one")).await.status, 200);
        refused(&partner.patch("/Users/max-id", title("two")).await, 404, "");
        // A revoked token, and one of an upstream that is switched off, open nothing.
        let idp = world.idp_admin();
        idp.switch::<Upstreams>("corp", false).await.unwrap();
        refused(&corp.get("/Users").await, 401, "");
        idp.switch::<Upstreams>("corp", true).await.unwrap();
        assert_eq!(corp.get("/Users").await.status, 200);
        let held = idp.provisioning_tokens("corp").await.unwrap().items;
        assert!(held[0].token.is_none() && held[0].used_at.is_some(), "{held:?}");
        idp.revoke_provisioning_token("corp", &held[0].id).await.unwrap();
        refused(&corp.get("/Users").await, 401, "");
        let refusals =
            events(&world).await.into_iter().filter(|event| event == "provision").count();
        assert!(refusals >= 5, "{refusals}");
        // A token ends by itself.
        world.pass(367 * 86_400);
        refused(&partner.get("/Users").await, 401, "");
    }

    pub(super) async fn a_group_may_stand_for_one_that_is_here_and_moves_its_own_people_alone() {
        let (world, _fake) = company(json!({"groups": {"Eng": "engineering"}})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let group = corp.group("Eng").await;
        let person = corp.person("new").await;
        let add = json!([{"op": "add", "path": "members", "value": [{"value": id(&person)}]}]);
        assert_eq!(corp.patch(&at("/Groups", &group), add).await.status, 204);
        assert_eq!(held_groups(&world, &person).await, ["engineering"]);
        assert_eq!(corp.members(&group).await, [id(&person)], "Erin is in it too, and not theirs");
        let none = json!([{"op": "replace", "path": "members", "value": []}]);
        corp.patch(&at("/Groups", &group), none).await;
        assert!(held_groups(&world, &person).await.is_empty());
        let erin = world.idp_admin().show::<Users>("erin").await.unwrap();
        assert!(erin.groups.contains("engineering"));
        assert_eq!(
            corp.send(Method::DELETE, &at("/Groups", &group), &Value::Null).await.status,
            204
        );
        assert!(
            world.idp_admin().show::<Groups>("engineering").await.is_ok(),
            "it was here before"
        );
        // What provisioning made, it takes away, and with it what the group opened.
        let made = corp.group("temporary").await;
        corp.patch(
            &at("/Groups", &made),
            json!([{"op": "add", "path": "members", "value": [{"value": id(&person)}]}]),
        )
        .await;
        assert_eq!(
            corp.send(Method::DELETE, &at("/Groups", &made), &Value::Null).await.status,
            204
        );
        assert!(world.idp_admin().show::<Groups>("temporary").await.is_err());
        assert!(held_groups(&world, &person).await.is_empty());
        // A group that an administrator deletes is gone here and there.
        let again = corp.group("temporary").await;
        world.idp_admin().delete::<Groups>("temporary").await.unwrap();
        refused(&corp.get(&at("/Groups", &again)).await, 404, "");
        // Deleting the upstream leaves people and groups, without its hand on them.
        let kept = corp.group("kept").await;
        corp.patch(
            &at("/Users", &person),
            json!([{"op": "replace", "path": "active", "value": false}]),
        )
        .await;
        world.idp_admin().delete::<Upstreams>("corp").await.unwrap();
        assert!(world.idp_admin().show::<Groups>("kept").await.is_ok());
        let on = world.idp_admin().switch::<Users>(&id(&person), true).await.unwrap();
        assert!(!on.inactive_there && !on.disabled, "nobody else can switch them on any more");
        drop(kept);
    }

    pub(super) async fn what_is_not_a_provisioners_is_refused_and_what_is_wrong_is_named() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let person = corp.person("a").await;
        let path = at("/Users", &person);
        for attribute in ["id", "meta", "groups", "roles", "entitlements", "schemas"] {
            let set = json!([{"op": "replace", "path": attribute, "value": [{"value": "admin"}]}]);
            refused(&corp.patch(&path, set).await, 400, "mutability");
        }
        for without_path in [
            json!({"groups": [{"value": "x"}]}),
            json!({"id": "other"}),
            json!({"roles": [{"value": "admin"}]}),
        ] {
            let reply = corp.patch(&path, json!([{"op": "replace", "value": without_path}])).await;
            refused(&reply, 400, "mutability");
        }
        for (operations, scim_type) in [
            (json!([]), "invalidSyntax"),
            (json!("x"), "invalidSyntax"),
            (json!([{"op": "move", "path": "title"}]), "invalidSyntax"),
            (json!([{"op": "remove"}]), "noTarget"),
            (json!([{"op": "replace", "path": "no such", "value": 1}]), "invalidPath"),
            (json!([{"op": "replace", "path": "nosuch", "value": "x"}]), "invalidPath"),
            (json!([{"op": "replace", "path": "emails[", "value": "x"}]), "invalidPath"),
            (json!([{"op": "replace", "path": "name.nosuch", "value": "x"}]), "invalidPath"),
            (json!([{"op": "replace", "path": "title.x", "value": "x"}]), "invalidPath"),
            (json!([{"op": "replace", "path": 7, "value": "x"}]), "invalidPath"),
            (json!([{"op": "replace", "path": "active", "value": "maybe"}]), "invalidValue"),
            (json!([{"op": "replace", "path": "active", "value": 0}]), "invalidValue"),
            (json!([{"op": "replace", "path": "title", "value": {"a": 1}}]), "invalidValue"),
            (json!([{"op": "replace", "path": "title", "value": "a\u{202e}b"}]), "invalidValue"),
            (
                json!([{"op": "replace", "path": "emails", "value": [{"value": "no address"}]}]),
                "invalidValue",
            ),
            (json!([{"op": "remove", "path": "userName"}]), "invalidValue"),
            (json!([{"op": "replace", "path": "userName", "value": ""}]), "invalidValue"),
            (json!([{"op": "replace", "value": "x"}]), "invalidSyntax"),
        ] {
            refused(&corp.patch(&path, operations).await, 400, scim_type);
        }
        // Nothing of a request that fails is done.
        let half = json!([{"op": "replace", "path": "title", "value": "CEO"}, {"op": "replace", "path": "nosuch", "value": 1}]);
        refused(&corp.patch(&path, half).await, 400, "invalidPath");
        assert!(corp.get(&path).await.json.get("title").is_none());
        for body in [
            json!({"schemas": ["urn:example:other"], "userName": "b"}),
            json!({"schemas": [USER]}),
            json!({"schemas": [USER], "userName": 7}),
            json!({"schemas": [USER], "userName": "x".repeat(300)}),
            json!({"schemas": [USER], "userName": "b", "USERNAME": "c"}),
            json!({"schemas": [USER], "userName": "b", "name": "no object"}),
            json!([1]),
            json!({"schemas": [USER], "userName": ".."}),
        ] {
            let reply = corp.send(Method::POST, "/Users", &body).await;
            assert_eq!(reply.status, 400, "{body}: {}", reply.text);
            assert!(reply.str("scimType").starts_with("invalid"), "{}", reply.text);
        }
        let not_json = corp.request(Method::POST, "/Users");
        refused(&world.send_body(&not_json, b"{".to_vec()).await, 400, "invalidSyntax");
        for filter in
            ["((((", "nosuch eq \"a\"", "userName", "userName eq", "'; DROP TABLE directory; --"]
        {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("filter", filter)
                .finish();
            refused(&corp.get(&format!("/Users?{query}")).await, 400, "invalidFilter");
        }
        // Pages are bounded whatever is asked for (RFC 7644, section 3.4.2.4).
        for (query, start, shown) in [
            ("count=1000000000", 1, 1),
            ("startIndex=-5", 1, 1),
            ("startIndex=99999999999999999999999", i64::MAX, 0),
            ("count=0", 1, 0),
            ("count=-3", 1, 0),
        ] {
            let page = corp.get(&format!("/Users?{query}")).await;
            assert_eq!(page.json["totalResults"], 1, "{query}: {}", page.text);
            assert_eq!(page.json["startIndex"], start);
            assert_eq!(page.json["Resources"].as_array().unwrap().len(), shown);
        }
        refused(&corp.get("/Users?count=many").await, 400, "invalidValue");
        refused(&corp.get("/Me").await, 501, "");
        refused(&corp.get("/nothing").await, 404, "");
        refused(&corp.send(Method::DELETE, "/Users", &Value::Null).await, 405, "");
        for discovery in ["/ServiceProviderConfig", "/Schemas", "/ResourceTypes"] {
            assert_eq!(corp.get(discovery).await.status, 200);
            refused(&corp.send(Method::POST, discovery, &json!({})).await, 405, "");
            let anonymous = corp.request(Method::GET, discovery).no_header("authorization");
            refused(&world.send_body(&anonymous, Vec::new()).await, 401, "");
        }
        let too_large = json!({"schemas": [USER], "userName": "b", "title": "x".repeat(3 << 20)});
        refused(&corp.send(Method::POST, "/Users", &too_large).await, 413, "");
    }

    pub(super) async fn a_version_that_is_not_the_present_one_changes_nothing() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        for (path, body) in [
            ("/Users", json!({"schemas": [USER], "userName": "a"})),
            ("/Groups", json!({"schemas": [GROUP], "displayName": "g"})),
        ] {
            let made = corp.add(path, &body).await;
            let one = at(path, &made);
            let version = made["meta"]["version"].as_str().unwrap().to_owned();
            let read = corp.get(&one).await;
            assert_eq!(read.header("etag"), version);
            let unchanged = corp.request(Method::GET, &one).header("if-none-match", &version);
            assert_eq!(world.send_body(&unchanged, Vec::new()).await.status, 304);
            let patch = |title: &str, version: &str| {
                let name = if path == "/Users" { "title" } else { "externalId" };
                let body = json!({"Operations": [{"op": "replace", "path": name, "value": title}]});
                (corp.request(Method::PATCH, &one).header("if-match", version), body.to_string())
            };
            let (ask, body) = patch("first", &version);
            assert!(world.send_body(&ask, body.into_bytes()).await.status < 300);
            let (ask, body) = patch("second", &version);
            refused(&world.send_body(&ask, body.into_bytes()).await, 412, "");
            let stale = corp.request(Method::DELETE, &one).header("if-match", &version);
            refused(&world.send_body(&stale, Vec::new()).await, 412, "");
            let now = corp.get(&one).await.header("etag").to_owned();
            assert_ne!(now, version);
            let gone = corp.request(Method::DELETE, &one).header("if-match", &now);
            assert_eq!(world.send_body(&gone, Vec::new()).await.status, 204);
        }
    }

    pub(super) async fn several_operations_in_one_request_are_done_in_order_and_within_limits() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let bulk = |operations: Value| {
            json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": operations})
        };
        let done = corp
        .send(Method::POST, "/Bulk", &bulk(json!([
            {"method": "POST", "path": "/Users", "bulkId": "alice",
             "data": {"schemas": [USER], "userName": "alice"}},
            {"method": "POST", "path": "/Groups", "bulkId": "tour",
             "data": {"schemas": [GROUP], "displayName": "Tour", "members": [{"value": "bulkId:alice"}]}},
            {"method": "PATCH", "path": "/Users/bulkId:alice",
             "data": {"Operations": [{"op": "replace", "path": "title", "value": "Guide"}]}},
        ])))
        .await;
        assert_eq!(done.status, 200, "{}", done.text);
        let statuses: Vec<&str> = done.json["Operations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["status"].as_str().unwrap())
            .collect();
        assert_eq!(statuses, ["201", "201", "200"], "{}", done.text);
        let alice =
            corp.get("/Users?filter=userName%20eq%20alice").await.json["Resources"][0].clone();
        assert_eq!(alice["title"], "Guide");
        assert_eq!(held_groups(&world, &alice).await, ["Tour"]);
        // What refers to itself, or to each other, cannot be made.
        let circle = corp
        .send(Method::POST, "/Bulk", &bulk(json!([
            {"method": "POST", "path": "/Groups", "bulkId": "a",
             "data": {"schemas": [GROUP], "displayName": "A", "members": [{"value": "bulkId:b"}]}},
            {"method": "POST", "path": "/Groups", "bulkId": "b",
             "data": {"schemas": [GROUP], "displayName": "B", "members": [{"value": "bulkId:b"}]}},
            {"method": "GET", "path": "/Users"},
            {"method": "POST", "path": "/Users", "data": {}},
        ])))
        .await;
        let statuses: Vec<&str> = circle.json["Operations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["status"].as_str().unwrap())
            .collect();
        assert_eq!(statuses, ["409", "409", "400", "400"], "{}", circle.text);
        let stop = json!({"failOnErrors": 1, "Operations": [
        {"method": "DELETE", "path": "/Users/none"}, {"method": "DELETE", "path": at("/Users", &alice)}]});
        let stopped = corp.send(Method::POST, "/Bulk", &stop).await;
        assert_eq!(stopped.json["Operations"].as_array().unwrap().len(), 1);
        assert_eq!(corp.get(&at("/Users", &alice)).await.status, 200);
        let one = json!({"method": "DELETE", "path": "/Users/none"});
        let many = bulk(json!(vec![one; 201]));
        refused(&corp.send(Method::POST, "/Bulk", &many).await, 413, "");
    }

    /// Many members move in several transactions; the answer comes when all have moved.
    pub(super) async fn a_large_group_moves_as_a_whole() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let mut ids = Vec::new();
        for n in 0..600 {
            ids.push(id(&corp.person(&format!("p{n}")).await));
        }
        let members: Vec<Value> = ids.iter().map(|id| json!({"value": id})).collect();
        let group = corp
            .add("/Groups", &json!({"schemas": [GROUP], "displayName": "all", "members": members}))
            .await;
        assert_eq!(corp.members(&group).await.len(), 600);
        let half = json!([{"op": "replace", "path": "members", "value": members[..300]}]);
        assert_eq!(corp.patch(&at("/Groups", &group), half).await.status, 204);
        let mut left = corp.members(&group).await;
        left.sort();
        let mut expected = ids[..300].to_vec();
        expected.sort();
        assert_eq!(left, expected);
        // Pages are all of it, once.
        let mut seen = std::collections::BTreeSet::new();
        for start in (1..=600).step_by(200) {
            let page = corp.get(&format!("/Users?startIndex={start}&count=200")).await.json;
            assert_eq!(page["totalResults"], 600);
            seen.extend(page["Resources"].as_array().unwrap().iter().map(id));
        }
        assert_eq!(seen.len(), 600);
        let one = corp.get("/Users?attributes=userName&count=1").await.json["Resources"][0].clone();
        let mut names: Vec<&String> = one.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["id", "schemas", "userName"]);
    }

    /// A change of an address to another person's makes nobody anybody else.
    pub(super) async fn an_address_of_another_person_links_nobody() {
        let (world, _fake) = company(json!({"just_in_time": true})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let person = corp.person("impostor").await;
        let address =
            json!([{"op": "replace", "path": "emails", "value": [{"value": "erin@acme.example"}]}]);
        assert_eq!(corp.patch(&at("/Users", &person), address).await.status, 200);
        let tokens = world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let claims = passavant_tests::forge::Parts::of(tokens["id_token"].as_str().unwrap()).claims;
        assert_ne!(claims["sub"], id(&person));
        assert_ne!(claims["sub"], "erin-id");
    }

    /// Lists are held to their limits before anything is compared with anything: with quadratic work this
    /// would take minutes.
    pub(super) async fn long_lists_cost_what_they_are_long() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let person = corp.person("a").await;
        let emails: Vec<Value> = (0..60_000).map(|n| json!({"value": format!("a{n}@b")})).collect();
        let many = json!({"schemas": [USER], "userName": "b", "emails": emails});
        refused(&corp.send(Method::POST, "/Users", &many).await, 400, "invalidValue");
        let set = json!([{"op": "add", "path": "emails", "value": emails}]);
        refused(&corp.patch(&at("/Users", &person), set).await, 400, "invalidValue");
        let members: Vec<Value> =
            (0..20_000).map(|n| json!({"value": format!("nobody-{n}")})).collect();
        let group = json!({"schemas": [GROUP], "displayName": "g", "members": members});
        corp.add("/Groups", &group).await;
        let names: Vec<String> = (0..500).map(|n| format!("a{n}")).collect();
        let names = names.join(",");
        refused(&corp.get(&format!("/Users?attributes={names}")).await, 400, "invalidValue");
    }

    /// Changes of one large group at once: each ends, none undoes another's for ever, nobody is lost.
    pub(super) async fn changes_of_a_large_group_at_once_end_and_the_later_one_holds() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let mut ids = Vec::new();
        for n in 0..900 {
            ids.push(id(&corp.person(&format!("p{n}")).await));
        }
        let group = corp.group("all").await;
        let path = at("/Groups", &group);
        let members =
            |ids: &[String]| -> Vec<Value> { ids.iter().map(|id| json!({"value": id})).collect() };
        // One of many is removed while the others come in.
        let add = json!([{"op": "add", "path": "members", "value": members(&ids)}]);
        let gone = at("/Users", &json!({"id": ids[600]}));
        let (added, removed) = tokio::join!(corp.patch(&path, add), async {
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            corp.send(Method::DELETE, &gone, &Value::Null).await
        });
        assert_eq!((added.status, removed.status), (204, 204), "{}", added.text);
        assert_eq!(corp.members(&group).await.len(), 899);
        // Two whole ones: at least one is done, and then it is that one's members that are in.
        let whole = |ids: &[String]| json!({"schemas": [GROUP], "displayName": "all", "members": members(ids)});
        let (one, other) = (whole(&ids[..400]), whole(&ids[400..600]));
        let put = |body: Value| {
            let (corp, path) = (&corp, &path);
            async move { corp.send(Method::PUT, path, &body).await.status }
        };
        let (first, second) = tokio::join!(put(one), put(other));
        let statuses = [first, second];
        assert!(statuses.contains(&200), "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        let left = corp.members(&group).await.len();
        assert!(left == 400 || left == 200, "{left} of a mixture");
        // Of those who mean one version, one is done.
        let version =
            corp.get(&format!("{path}?excludedAttributes=members")).await.header("etag").to_owned();
        assert_eq!(corp.get(&path).await.header("etag"), version, "whatever is shown");
        let rename = |name: String| {
            let body =
                json!({"Operations": [{"op": "replace", "path": "externalId", "value": name}]});
            let ask = corp.request(Method::PATCH, &path).header("if-match", &version);
            let world = &world;
            async move { world.send_body(&ask, body.to_string().into_bytes()).await.status }
        };
        let all = futures::future::join_all((0..6).map(|n| rename(format!("x{n}")))).await;
        assert_eq!(all.iter().filter(|status| **status < 300).count(), 1, "{all:?}");
        assert_eq!(all.iter().filter(|status| **status == 412).count(), 5, "{all:?}");
        // A large one goes, and what it opened with it.
        assert_eq!(corp.send(Method::DELETE, &path, &Value::Null).await.status, 204);
        assert!(world.idp_admin().show::<Groups>("all").await.is_err());
        let held = corp.get(&at("/Users", &json!({"id": ids[450]}))).await.json;
        assert!(held_groups(&world, &held).await.is_empty());
    }

    pub(super) async fn what_an_administrator_takes_back_from_a_provisioner_stays_taken_back() {
        let (world, _fake) =
            company(json!({"groups": {"Eng": "engineering"}, "external_id_is_subject": true}))
                .await;
        let idp = world.idp_admin();
        let corp = Provisioner::of(&world, "corp").await;
        let group = corp.group("Eng").await;
        let person = corp
            .add(
                "/Users",
                &json!({"schemas": [USER], "userName": "erin.there", "externalId": "erin-there"}),
            )
            .await;
        let change = |change: Value| serde_json::from_value(change).unwrap();
        idp.change::<Upstreams>("corp", &change(json!({"groups": {}})), None).await.unwrap();
        let add = json!([{"op": "add", "path": "members", "value": [{"value": id(&person)}]}]);
        refused(&corp.patch(&at("/Groups", &group), add).await, 409, "uniqueness");
        assert!(held_groups(&world, &person).await.is_empty());
        assert_eq!(
            corp.send(Method::DELETE, &at("/Groups", &group), &Value::Null).await.status,
            204
        );
        assert!(idp.show::<Groups>("engineering").await.is_ok());
        // Who was unlinked is not linked again by the same `externalId`.
        world.through(&mut Browser::default(), "corp", "").await.unwrap();
        let link = passavant_admin::types::PersonLinkQuery {
            subject: "erin-there".to_owned(),
            tenant: None,
        };
        idp.unlink_person("corp", &link).await.unwrap();
        let page = world.through(&mut Browser::default(), "corp", "").await.unwrap_err();
        assert_eq!(page.status, 403);
        let again =
            NewPersonLink { user: id(&person), subject: "erin-there".to_owned(), tenant: None };
        idp.link_person("corp", &again).await.unwrap();
        world.through(&mut Browser::default(), "corp", "").await.unwrap();
        // What decides who is found is named in the trail.
        let other = json!([{"op": "replace", "path": "externalId", "value": "somebody-else"}]);
        corp.patch(&at("/Users", &person), other).await;
        let filter = AuditFilter {
            event: Some("provision.changed".to_owned()),
            limit: 1,
            ..AuditFilter::default()
        };
        let row = &world.idp_store.audit(&filter).await.unwrap()[0];
        assert_eq!(row.details["detail"], "externalId from `erin-there` to `somebody-else`");
    }

    pub(super) async fn what_is_written_in_another_way_is_the_same_or_is_refused() {
        let (world, _fake) = company(json!({})).await;
        let corp = Provisioner::of(&world, "corp").await;
        let query = |filter: &str| {
            form_urlencoded::Serializer::new(String::new()).append_pair("filter", filter).finish()
        };
        corp.person(" Caf\u{e9} ").await;
        for name in ["caf\u{e9}", "CAFE\u{301}", " caf\u{e9}"] {
            let found =
                corp.get(&format!("/Users?{}", query(&format!("userName eq \"{name}\"")))).await;
            assert_eq!(found.json["totalResults"], 1, "{name}: {}", found.text);
        }
        corp.group("Sales ").await;
        let found = corp.get(&format!("/Groups?{}", query("displayName eq \"Sales \""))).await;
        assert_eq!(found.json["totalResults"], 1, "{}", found.text);
        for name in ["sales", "SALES", "Engineering"] {
            let body = json!({"schemas": [GROUP], "displayName": name});
            refused(&corp.send(Method::POST, "/Groups", &body).await, 409, "uniqueness");
        }
        // NUL, and what is no text, is the name of nothing.
        for path in ["/Users/%00", "/Groups/a%00b", "/Users/%ff", "/Users/a%2Fb"] {
            refused(&corp.get(path).await, 404, "");
        }
        for filter in
            ["id eq \"a\\u0000b\"", "userName eq \"a\\u0000b\"", "externalId eq \"\\u0000\""]
        {
            let found = corp.get(&format!("/Users?{}", query(filter))).await;
            assert_eq!(found.json["totalResults"], 0, "{filter}: {}", found.text);
        }
        let person = corp.person("b").await;
        let path = at("/Users", &person);
        let body =
            json!({"Operations": [{"op": "replace", "path": "title", "value": "x"}]}).to_string();
        for header in ["W/\"\u{fffd}\"", "nothing", ""] {
            let ask = corp.request(Method::PATCH, &path).header("if-match", header);
            let reply = world.send_body(&ask, body.clone().into_bytes()).await;
            refused(&reply, 412, "");
        }
        let numbered = json!({"Operations": [{"method": "DELETE", "path": path, "version": 5}]});
        let done = corp.send(Method::POST, "/Bulk", &numbered).await;
        assert_eq!(done.json["Operations"][0]["status"], "400", "{}", done.text);
        // Read in two ways: refused.
        for twice in [
            r#"{"Operations":[{"op":"replace","value":{"active":false,"active":true}}]}"#,
            r#"{"Operations":[{"op":"replace","value":{"ACTIVE":false,"active":true}}]}"#,
            r#"{"Operations":[],"Operations":[{"op":"replace","path":"active","value":false}]}"#,
        ] {
            let ask = corp.request(Method::PATCH, &path);
            refused(&world.send_body(&ask, twice.as_bytes().to_vec()).await, 400, "invalidSyntax");
        }
        // The domain of an address is what follows its one `@`.
        let address = json!([{"op": "replace", "path": "emails", "value": [{"value": "ceo@partner.example@acme.example"}]}]);
        refused(&corp.patch(&path, address).await, 400, "invalidValue");
        let search = json!({"Operations": [{"method": "POST", "path": "/Users/.search", "bulkId": "a", "data": {}}]});
        let done = corp.send(Method::POST, "/Bulk", &search).await;
        assert_eq!(done.json["Operations"][0]["status"], "400");
    }
}
