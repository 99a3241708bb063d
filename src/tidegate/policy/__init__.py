"""What groups may do: values and pure functions. Nothing here knows a clock, a socket or a process; "now" is an argument."""
