"""Commands about devices: plans, measurements and this machine."""
