"""WebRTC from a real browser on networks that hide: mDNS names in the place of addresses, and TURN relays alone."""

from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e

CALL_WITHOUT_A_MICROPHONE = """
async () => {
  const peer = new RTCPeerConnection();
  const context = new AudioContext();
  const track = context.createMediaStreamDestination().stream.getAudioTracks()[0];
  peer.addTrack(track);
  const channel = peer.createDataChannel("events");
  const first = new Promise((resolve) => { channel.onmessage = ({ data }) => resolve(JSON.parse(data)); });
  const gathered = new Promise((resolve) => {
    peer.onicecandidate = ({ candidate }) => candidate === null && resolve();
  });
  await peer.setLocalDescription(await peer.createOffer());
  await gathered;
  const lines = (sdp) => sdp.split("\\r\\n");
  const isCandidate = (line) => line.startsWith("a=candidate");
  const answer = await fetch("/v1/webrtc", {
    method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp,
  });
  // Without the server's addresses the browser has nowhere to send to: only the server can find a way.
  const sdp = lines(await answer.text()).filter((line) => !isCandidate(line)).join("\\r\\n");
  await peer.setRemoteDescription({ type: "answer", sdp });
  const late = new Promise((resolve) => setTimeout(() => resolve({ type: peer.iceConnectionState }), 15000));
  const { type } = await Promise.race([first, late]);
  const candidates = lines(peer.localDescription.sdp).filter(isCandidate).map((line) => line.split(" ")[4]);
  peer.close();
  return { candidates, type };
}
"""

RELAY_ONLY = """
// As on a network that lets nothing but the relay through.
const Native = RTCPeerConnection;
globalThis.peers = [];
globalThis.RTCPeerConnection = class extends Native {
  constructor(configuration) {
    super({ ...configuration, iceTransportPolicy: "relay" });
    globalThis.peers.push(this);
  }
  setConfiguration(configuration) {
    super.setConfiguration({ ...configuration, iceTransportPolicy: "relay" });
  }
};
"""

CANDIDATES_IN_USE = """
async () => {
  const entries = [...(await globalThis.peers[0].getStats()).values()];
  const pair = entries.find(({ type, nominated }) => type === "candidate-pair" && nominated);
  return [pair.localCandidateId, pair.remoteCandidateId].map((id) => entries.find((one) => one.id === id).candidateType);
}
"""


def test_a_browser_that_hides_its_addresses_is_found(
    server: Any, open_browser: Any, open_console: Any
) -> None:
    """A page without leave to listen offers mDNS names alone: the server looks them up and connects to them."""
    with open_console(open_browser(may_listen=False), server) as console:
        found = console.page.evaluate(CALL_WITHOUT_A_MICROPHONE)
    assert found["candidates"]
    assert all(host.endswith(".local") for host in found["candidates"])
    assert found["type"] == "ready"


def test_a_browser_behind_a_relay_learns_its_credentials_and_calls(
    start_server: Any, open_browser: Any, open_console: Any, speech: Any, coturn: Any
) -> None:
    """Both sides use nothing but TURN: the page gets address and credentials with the answer, and is understood."""
    server = start_server(
        webrtc__turn_servers=coturn.url, webrtc__turn_secret=coturn.secret, webrtc__relay_only="yes"
    )
    browser = open_browser(speech("beckett"))
    with open_console(browser, server) as console:
        console.page.add_init_script(RELAY_ONLY)
        console.page.reload()
        console.call("WebRTC")
        assert console.page.evaluate(CANDIDATES_IN_USE) == ["relay", "relay"]
        console.expect_words("fail better")
        console.expect_no_notice()
        console.hang_up()
        expect(console.finals).not_to_have_count(0)
    assert coturn.secret not in server.log()
