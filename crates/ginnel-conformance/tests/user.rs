//! Every clause, asked of the user-space home.

use std::time::Duration;

use ginnel_conformance::clause::run;
use ginnel_conformance::sync;
use ginnel_conformance::user::User;
use ginnel_testkit::isolated_for;

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn sysv_semaphores() {
    isolated_for(LIMIT, || run::<User>("System V semaphores", sync::sysv_semaphore::clauses()));
}
