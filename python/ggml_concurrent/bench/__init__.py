"""Measures graphs of the zoo, computed in several ways on one machine: `ggml-concurrent bench`.

`candidates` lists the ways; each lives in a process of its own (`worker`), and `measure` asks these
processes in turns.  `results` holds what came out, `results_file` reads and writes it as JSON,
`table` and `page` show it.  `graphs` reads which graphs are asked for, `device` says what they are
computed on.  `traffic` counts the bytes that a graph reads and measures how fast the machine
copies, `study` finds how fast a graph could be at best.
"""
