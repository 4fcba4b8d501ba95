"""From TTIR to C: one program instance becomes one C function, its tiles become loops over lanes."""
