"""The ground floor: the table of operations, dispatch, capability, threads, arrays and the door to C."""
