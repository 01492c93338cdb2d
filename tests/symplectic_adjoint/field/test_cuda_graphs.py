from threading import Barrier, Thread

from symplectic_adjoint.field.cuda_graphs import Loans


def test_one_is_enough_for_loans_that_follow_each_other():
    loans, lent = Loans(object), []
    for _ in range(3):
        with loans.one() as x:
            lent.append(x)
    assert all(x is lent[0] for x in lent)


def test_loans_within_a_loan_and_in_two_threads_are_apart():
    loans, both, lent = Loans(object), Barrier(2, timeout=60), []

    def borrow():
        with loans.one() as outer, loans.one() as inner:
            lent.extend((outer, inner))
            both.wait()

    threads = [Thread(target=borrow) for _ in range(2)]
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    assert len(set(lent)) == 4
    with loans.one() as again:
        assert again in lent


def test_what_was_lent_comes_back_after_an_error():
    loans = Loans(object)
    try:
        with loans.one() as lent:
            raise KeyError
    except KeyError:
        pass
    with loans.one() as again:
        assert again is lent
