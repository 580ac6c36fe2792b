// Which stages a head has, in which order, in which colours: the dataset's first, then those only models use, then those the draft
// brings along. A stage has one colour wherever it is drawn.

/** Stage names of a head with their colours. The dataset's come first, then those only models use, then those the draft brings along. */
export class StagePalette {
  constructor(data, dataset, draft) {
    Object.assign(this, { draft, listed: data.names || [], colours: data.colours || [], palette: dataset.palette });
    this.known = this.listed.slice(0, data.own ?? this.listed.length);
    this.of = this.of.bind(this);
  }

  /** The dataset's stages with the draft's: a new one comes after the stage that it follows. */
  get inOrder() {
    const names = [...this.known];
    this.draft.segments.forEach((one, k, all) => {
      if (!names.includes(one.name)) names.splice(k > 0 ? names.indexOf(all[k - 1].name) + 1 : 0, 0, one.name);
    });
    return names;
  }

  /** What a menu offers: models' stages too. */
  get names() {
    return [...new Set([...this.inOrder, ...this.listed])];
  }

  /** By name, or by number in the head's list. */
  of(stage) {
    const place = typeof stage === "number" ? stage : this.listed.indexOf(stage);
    const name = typeof stage === "number" ? (this.listed[stage] ?? `stage ${stage + 1}`) : stage;
    const fresh = place >= 0 ? [] : this.inOrder.filter((one) => !this.listed.includes(one));
    const k = place >= 0 ? place : this.listed.length + Math.max(0, fresh.indexOf(name));
    return { name, colour: this.colours[k] || this.palette[k % this.palette.length], hatched: k >= this.palette.length };
  }
}
