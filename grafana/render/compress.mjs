// Reads a PNG from standard input, and writes it with a palette of 256 colours to standard output.
import sharp from 'sharp';

const chunks = [];
for await (const chunk of process.stdin) {
  chunks.push(chunk);
}
process.stdout.write(await sharp(Buffer.concat(chunks)).png({ palette: true, colours: 256, dither: 0, effort: 10 }).toBuffer());
