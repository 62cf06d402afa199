//! A server that is about to end.

use connlib_wire::stun::Method;

use crate::support::{
    Ask, Binding, Rig, VerdictExt as _, client, config, peer, rest_user, secs, standard, user,
};

#[test]
fn nobody_gets_an_allocation_and_all_else_goes_on() {
    for (config, alice, bob) in [
        (config(), user("a"), user("b")),
        (standard(), rest_user("a"), rest_user("b")),
    ] {
        let mut rig = Rig::with(config);
        let request = rig.request(client(1), &alice, &Ask::allocate());
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        rig.server.drain();
        assert!(!rig.server.is_empty());

        let refused = rig.ask(client(2), &bob, &Ask::allocate()).unwrap();
        assert_eq!(refused.code(), Some(508));
        let _ = rig.send(client(1), &request);
        assert_eq!(rig.answer(), Some(answer), "a lost answer is given again");
        let binding = rig.bare(&Ask::new(Method::Binding));
        let _ = rig.send(client(3), &binding);
        assert!(rig.answer().unwrap().is_success());
        assert_eq!(rig.bind(client(1), &alice, 0x4000, peer(1)), None);
        let refresh = rig.ask(client(1), &alice, &Ask::refresh(secs(3_600)));
        assert!(refresh.unwrap().is_success());
        assert_eq!(rig.send_data(client(1), 0x4000, b"x").forward().to, peer(1));

        // From another socket nothing is lost for a 508.
        let elsewhere = rig.ask(client(4), &alice, &Ask::allocate()).unwrap();
        assert_eq!(elsewhere.code(), Some(508));
        assert!(!rig.server.is_empty());
        rig.ask(client(1), &alice, &Ask::refresh(secs(0)));
        assert!(rig.server.is_empty());
    }
}

#[test]
fn an_allocation_whose_port_is_being_opened_is_one() {
    let mut rig = Rig::new();
    assert!(rig.server.is_empty());
    rig.binding = Binding::NeverEnds;
    rig.ask(client(1), &user("a"), &Ask::allocate());
    rig.server.drain();
    assert!(!rig.server.is_empty());
    rig.pass(secs(5));
    assert!(rig.server.is_empty());
}
