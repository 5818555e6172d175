// Pictures of a track on a canvas: its waveform, or its spectrogram. Colours come from the page.

export function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

export function drawWaveform(canvas, peaks, color) {
  const { pen, width, height } = prepare(canvas);
  const middle = height / 2;
  pen.fillStyle = color;
  for (let x = 0; x < width; x += 1) {
    const from = Math.floor((x * peaks.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * peaks.length) / width));
    let peak = 0;
    for (let i = from; i < to; i += 1) peak = Math.max(peak, peaks[i]);
    const half = Math.max(0.5, (peak / 255) ** 0.75 * (middle - 1));
    pen.fillRect(x, middle - half, 1, 2 * half);
  }
}

export function drawSpectrogram(canvas, levels, bands, color) {
  const { pen, width, height } = prepare(canvas);
  const columns = levels.length / bands;
  const picture = pen.createImageData(columns, bands);
  const [red, green, blue] = rgb(color);
  for (let column = 0; column < columns; column += 1) {
    for (let band = 0; band < bands; band += 1) {
      const level = levels[column * bands + band] / 255;
      const at = 4 * ((bands - 1 - band) * columns + column);
      const white = Math.max(0, level - 0.6) * 1.8; // the loudest glow
      picture.data[at] = red + (255 - red) * white;
      picture.data[at + 1] = green + (255 - green) * white;
      picture.data[at + 2] = blue + (255 - blue) * white;
      picture.data[at + 3] = 255 * level ** 0.95;
    }
  }
  const sheet = new OffscreenCanvas(columns, bands);
  sheet.getContext("2d").putImageData(picture, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(sheet, 0, 0, width, height);
}

// Ticks of a time axis: [seconds, ...], about one in every hundred pixels.
export function ticks(seconds, width) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200];
  const step = steps.find((each) => seconds / each <= Math.max(2, width / 90)) || 3600;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step);
}

export function clock(seconds, digits = 0) {
  const scale = 10 ** digits;
  const whole = Math.floor(seconds * scale + 1e-6) / scale;
  const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${Math.floor(whole / 60)}:${rest}`;
}

function rgb(color) {
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  pen.fillStyle = color;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data;
}
