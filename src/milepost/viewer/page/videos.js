// The pictures: a tile for each camera that is shown, and the picker. A tile plays the dataset's own file where the browser can,
// else the server's H.264 copy; what cannot be played says why. Connections are let go when a tile goes.

import { h, icon, replace, styled } from "milepost/dom";
import { cameraName } from "milepost/format";
import { playable, refusal } from "milepost/source";

const MOST_AT_FIRST = 3;
const probe = document.createElement("video");
/** @type {Set<string>|null} what was last chosen, for the next episode */
let chosen = null;

/** The streams to try, the best first. */
function streamsOf(camera) {
  const streams = [];
  if (camera.source && probe.canPlayType(camera.source.type)) streams.push({ url: camera.source.url, start: camera.source.start_s || 0 });
  if (camera.h264) streams.push({ url: camera.h264.url, start: 0, made: true });
  return streams;
}

/** All tiles of an episode and its picker. @param {import("milepost/player").Player} player */
export class Videos {
  constructor(episode, player) {
    Object.assign(this, { episode, player, tiles: new Map() });
    this.keys = Object.keys(episode.cameras);
    const kept = chosen ? this.keys.filter((key) => chosen.has(key)) : [];
    this.shown = new Set(kept.length ? kept : this.keys.slice(0, MOST_AT_FIRST));
    this.stage = h("div", { class: "tiles" });
    this.picker = h("div", { class: "cameras", role: "group", "aria-label": "Cameras" });
    this.element = h("section", { class: "videos", "aria-label": "Video" }, this.keys.length > 1 && this.picker, this.stage);
    this.render();
  }

  render() {
    for (const [key, tile] of this.tiles) if (!this.shown.has(key)) this.drop(key, tile);
    for (const key of this.shown) if (!this.tiles.has(key)) this.tiles.set(key, this.tile(key));
    replace(
      this.stage,
      this.keys.filter((key) => this.shown.has(key)).map((key) => this.tiles.get(key).element),
    );
    if (!this.keys.length) replace(this.stage, h("p", { class: "empty" }, "This dataset has no camera."));
    const rows = this.shown.size > 3 ? 2 : 1;
    styled(this.stage, { "--rows": String(rows), "--columns": String(Math.ceil(this.shown.size / rows)) });
    replace(
      this.picker,
      this.keys.map((key) => this.chip(key)),
    );
  }

  chip(key) {
    const on = this.shown.has(key);
    return h(
      "button",
      { type: "button", class: "chip", "aria-pressed": String(on), title: key, onclick: () => this.toggle(key) },
      cameraName(key),
    );
  }

  toggle(key) {
    if (!this.shown.delete(key)) this.shown.add(key);
    if (!this.shown.size) this.shown.add(key);
    chosen = new Set(this.shown);
    this.render();
  }

  tile(key) {
    const { width, height } = this.episode.cameras[key];
    const video = h("video", {
      muted: true,
      playsinline: true,
      preload: "auto",
      "aria-label": `Camera ${cameraName(key)}`,
      tabindex: "-1",
    });
    video.disablePictureInPicture = true;
    if (Math.max(width || 0, height || 0) && Math.max(width, height) < 200) video.classList.add("small");
    const said = h("p", { class: "said" });
    const element = h("figure", { class: "tile" }, video, said, h("figcaption", {}, cameraName(key)));
    styled(element, { "--ratio": String(width && height ? width / height : 4 / 3) });
    const tile = { key, element, video, said, letGo: null };
    video.addEventListener("click", () => this.player.toggle());
    this.tryNext(tile, streamsOf(this.episode.cameras[key]));
    return tile;
  }

  tryNext(tile, [stream, ...others], failed = false) {
    tile.letGo?.();
    if (!stream) {
      this.giveUp(tile, failed);
      return;
    }
    const slow = setTimeout(() => replace(tile.said, stream.made ? "Making an H.264 copy…" : "Loading…"), 250);
    const loaded = () => {
      clearTimeout(slow);
      replace(tile.said);
    };
    const broken = () => {
      clearTimeout(slow);
      this.tryNext(tile, others, true);
    };
    tile.video.addEventListener("loadeddata", loaded, { once: true });
    tile.video.addEventListener("error", broken, { once: true });
    tile.video.src = playable(stream.url);
    const detach = this.player.attach(tile.video, stream.start);
    tile.letGo = () => {
      clearTimeout(slow);
      tile.video.removeEventListener("loadeddata", loaded);
      tile.video.removeEventListener("error", broken);
      detach();
    };
  }

  /** Says why there are no pictures: they cannot be read, or the browser cannot play what there is. */
  async giveUp(tile, failed) {
    const words = failed ? "This video cannot be played." : "No video the browser can play.";
    const { unreadable, h264 } = this.episode.cameras[tile.key];
    replace(tile.said, icon("film"), unreadable ? `This video cannot be read: ${unreadable}` : words);
    const reason = unreadable ? "" : await refusal(h264?.url);
    if (reason) replace(tile.said, icon("film"), `This video cannot be read: ${reason}`);
  }

  drop(key, tile) {
    tile.letGo?.();
    tile.video.removeAttribute("src");
    tile.video.load();
    this.tiles.delete(key);
  }

  close() {
    for (const [key, tile] of this.tiles) this.drop(key, tile);
  }
}
