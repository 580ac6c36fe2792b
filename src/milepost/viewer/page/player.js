// One clock for all pictures of an episode: which frame is shown, and whether it plays. Frames count inside the episode.
// Paused at frame i, every video stands at start_s + (i + 0.5) / fps, the middle of that frame's time, so rounding never shows a neighbour.
// Playing, the first video tells which frame is on the screen (requestVideoFrameCallback), the others follow; without a video a timer does.

/** "frame": another frame is shown. "state": played, paused or another speed. "settled": the pictures of the frame asked for are there. */
export class Player extends EventTarget {
  constructor(length, fps) {
    super();
    Object.assign(this, { length, fps, frame: 0, playing: false, rate: 1, tracks: [], turn: 0, began: null });
    this.tick = this.tick.bind(this);
  }

  /** A video that shows this episode from `start` seconds on. Answers a function that lets it go. */
  attach(video, start) {
    const track = { video, start, busy: false, aimed: -1 };
    track.seeked = () => this.arrived(track);
    track.loaded = () => this.join(track);
    track.ended = () => this.playing && track === this.master && this.stopAt(this.length - 1);
    video.addEventListener("seeked", track.seeked);
    video.addEventListener("loadedmetadata", track.loaded);
    video.addEventListener("ended", track.ended);
    this.tracks.push(track);
    if (video.readyState >= 1) this.join(track);
    return () => this.detach(track);
  }

  detach(track) {
    const { video } = track;
    const led = track === this.master;
    this.tracks = this.tracks.filter((one) => one !== track);
    video.removeEventListener("seeked", track.seeked);
    video.removeEventListener("loadedmetadata", track.loaded);
    video.removeEventListener("ended", track.ended);
    if (led && this.playing) this.follow();
  }

  /** The video that leads: the first that can. */
  get master() {
    return this.tracks.find((track) => track.video.readyState >= 1 && !track.video.error);
  }

  join(track) {
    track.video.playbackRate = this.rate;
    this.aim(track);
    if (!this.playing) return;
    this.start(track);
    if (track === this.master) this.follow();
  }

  time(track, frame) {
    return track.start + (frame + 0.5) / this.fps;
  }

  /** Send a video to the frame now; a seek under way ends first, and only the latest wish is followed. */
  aim(track) {
    if (track.busy || track.video.readyState < 1) return;
    track.busy = true;
    track.aimed = this.frame;
    track.video.currentTime = this.time(track, this.frame);
  }

  arrived(track) {
    track.busy = false;
    if (!this.playing && track.aimed !== this.frame) this.aim(track);
    else if (this.settled) this.dispatchEvent(new Event("settled"));
  }

  /** Do all pictures show the frame? */
  get settled() {
    return !this.playing && this.tracks.every((track) => track.video.error || (!track.busy && track.aimed === this.frame));
  }

  /** Pause at this frame. */
  seek(frame) {
    if (this.playing) this.halt();
    this.show(Math.min(this.length - 1, Math.max(0, Math.round(frame))));
    this.tracks.forEach((track) => this.aim(track));
  }

  show(frame) {
    if (frame === this.frame) return;
    this.frame = frame;
    this.dispatchEvent(new Event("frame"));
  }

  step(frames) {
    this.seek(this.frame + frames);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.playing) return;
    if (this.frame >= this.length - 1) this.seek(0);
    this.playing = true;
    this.tracks.forEach((track) => this.start(track));
    this.follow();
    this.dispatchEvent(new Event("state"));
  }

  start(track) {
    track.video.playbackRate = this.rate;
    track.video.play().catch(() => {}); // refused or broken: the tile says so, the timer leads
  }

  pause() {
    if (!this.playing) return;
    this.halt();
    this.tracks.forEach((track) => this.aim(track));
  }

  halt() {
    this.playing = false;
    this.turn = this.turn + 1;
    for (const track of this.tracks) {
      track.video.pause();
      track.aimed = -1;
    }
    this.dispatchEvent(new Event("state"));
  }

  stopAt(frame) {
    this.show(frame);
    this.pause();
  }

  setRate(rate) {
    this.rate = rate;
    for (const track of this.tracks) track.video.playbackRate = rate;
    this.began = null;
    this.dispatchEvent(new Event("state"));
  }

  /** Listen to the leading video's frames, or to a timer where there is none. Listeners of an earlier turn fall silent. */
  follow() {
    this.turn = this.turn + 1;
    this.began = null;
    this.next(this.turn);
  }

  next(turn) {
    const video = this.master?.video;
    if (video && "requestVideoFrameCallback" in video) video.requestVideoFrameCallback((_, at) => this.tick(turn, at.mediaTime));
    else requestAnimationFrame((now) => this.tick(turn, null, now));
  }

  tick(turn, mediaTime, now) {
    if (!this.playing || turn !== this.turn) return;
    const frame = this.frameNow(mediaTime, now);
    if (frame >= this.length - 1) {
      this.stopAt(this.length - 1);
      return;
    }
    if (frame >= 0) this.show(frame);
    this.gather();
    this.next(turn);
  }

  frameNow(mediaTime, now) {
    const lead = this.master;
    if (lead && mediaTime !== null) return Math.round((mediaTime - lead.start) * this.fps);
    if (lead) return Math.floor((lead.video.currentTime - lead.start) * this.fps);
    if (!this.began) this.began = { now, frame: this.frame };
    return Math.floor(this.began.frame + ((now - this.began.now) / 1000) * this.rate * this.fps);
  }

  /** Bring the other videos back beside the leading one: a little faster or slower, or by a jump when far off. */
  gather() {
    const lead = this.master;
    if (!lead) return;
    for (const track of this.tracks) {
      if (track === lead || track.video.seeking || track.video.readyState < 2) continue;
      const off = track.video.currentTime - track.start - (lead.video.currentTime - lead.start);
      if (Math.abs(off) > 0.4) track.video.currentTime = lead.video.currentTime - lead.start + track.start;
      const bent = Math.abs(off) > 0.5 / this.fps ? 1 - Math.sign(off) * 0.06 : 1;
      if (track.video.playbackRate !== this.rate * bent) track.video.playbackRate = this.rate * bent;
    }
  }

  close() {
    this.playing = false;
    this.turn = -1;
    [...this.tracks].forEach((track) => this.detach(track));
  }
}
