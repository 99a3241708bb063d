"""What a close look reads: flow offload in nft's and in uci's words."""

from tidegate.router.inspection import offload_remarks

FLOWTABLES = """table inet fw4 {
\tflowtable ft {
\t\thook ingress priority filter
\t\tdevices = { eth0, eth1 }
\t\tcounter
\t}
}
uci flow_offloading
uci flow_offloading_hw
"""


def test_every_flowtable_and_every_switch_is_named_with_what_to_do() -> None:
    found = [remark.text for remark in offload_remarks(FLOWTABLES)]
    assert found[0].startswith("nft flowtable ft of table inet fw4: connections in it pass by limits and blocks")
    assert [text.split("`")[1] for text in found[1:]] == [
        "uci set firewall.@defaults[0].flow_offloading=0",
        "uci set firewall.@defaults[0].flow_offloading_hw=0",
    ]


def test_a_router_without_any_is_not_remarked_on() -> None:
    for flows in ("", "table inet fw4 {\n}\n", "?? flowtable\n", "table\nflowtable\nuci\n"):
        assert list(offload_remarks(flows)) == []
