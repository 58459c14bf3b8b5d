/* The bounded queue: order, what has to go, waiting, waking, and two threads that hurry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/ring.h"

enum { HURRY = 200000 };

static void *number(intptr_t n)
{
	return (void *)n;
}

static void test_order_and_eviction(void **state)
{
	struct ring ring;
	struct ring_counters c;

	(void)state;
	assert_int_equal(ring_init(&ring, 3), 0);
	assert_null(ring_pop(&ring));
	for (int i = 1; i <= 3; i++)
		assert_null(ring_push(&ring, number(i)));
	assert_ptr_equal(ring_push(&ring, number(4)), number(1));
	assert_ptr_equal(ring_push(&ring, number(5)), number(2));
	for (int i = 3; i <= 5; i++)
		assert_ptr_equal(ring_pop(&ring), number(i));
	assert_null(ring_pop(&ring));
	c = ring_counters(&ring);
	print_message("pushed %llu popped %llu evicted %llu most %d\n",
		      (unsigned long long)c.pushed, (unsigned long long)c.popped,
		      (unsigned long long)c.evicted, c.most);
	assert_int_equal(c.pushed, 5);
	assert_int_equal(c.popped, 3);
	assert_int_equal(c.evicted, 2);
	assert_int_equal(c.most, 3);
	ring_finish(&ring);
	ring_finish(&ring);
}

static void test_waits_until_the_deadline(void **state)
{
	const int64_t start_ns = clock_now_ns();
	struct ring ring;
	int64_t waited_ns;

	(void)state;
	assert_int_equal(ring_init(&ring, 1), 0);
	assert_null(ring_pop_until(&ring, start_ns + 50 * CLOCK_MS_NS));
	waited_ns = clock_now_ns() - start_ns;
	print_message("waited %.1f ms of 50\n", (double)waited_ns / 1e6);
	assert_true(waited_ns >= 50 * CLOCK_MS_NS);
	/* Woken before it waits: the next wait ends at once, the one after it does not. */
	ring_wake(&ring);
	assert_null(ring_pop_until(&ring, clock_now_ns() + 60 * CLOCK_SECOND_NS));
	assert_null(ring_pop_until(&ring, clock_now_ns() + 10 * CLOCK_MS_NS));
	ring_finish(&ring);
}

static void *hurry(void *argument)
{
	struct ring *ring = argument;

	for (intptr_t i = 1; i <= HURRY; i++)
		(void)ring_push(ring, number(i));
	return NULL;
}

/* What arrives is in order, and what was pushed was popped, evicted, or is still there. */
static void test_two_threads(void **state)
{
	struct ring ring;
	struct ring_counters c;
	pthread_t thread;
	intptr_t last = 0;

	(void)state;
	assert_int_equal(ring_init(&ring, 8), 0);
	assert_int_equal(pthread_create(&thread, NULL, hurry, &ring), 0);
	while (last < HURRY) {
		const intptr_t n =
			(intptr_t)ring_pop_until(&ring, clock_now_ns() + CLOCK_SECOND_NS);

		assert_true(n > last);
		last = n;
	}
	(void)pthread_join(thread, NULL);
	c = ring_counters(&ring);
	print_message("pushed %llu popped %llu evicted %llu\n", (unsigned long long)c.pushed,
		      (unsigned long long)c.popped, (unsigned long long)c.evicted);
	assert_int_equal(c.pushed, HURRY);
	assert_int_equal(c.popped + c.evicted, HURRY);
	ring_finish(&ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_eviction),
		cmocka_unit_test(test_waits_until_the_deadline),
		cmocka_unit_test(test_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
