"""Doubles of model servers on a real loopback socket: for timing and faults only, kept honest by the official SDKs."""
