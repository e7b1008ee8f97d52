"""How questions reach runtimes: one small interface, over ZeroMQ or the runtime's compiled binding."""
