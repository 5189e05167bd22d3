"""The trader's door: a bounded HTTP server in front of one node.

`port` is what the door asks of the node, `wire` the JSON both ends share, `limits` every bound,
`server` the connections, `app` the routes.
"""
