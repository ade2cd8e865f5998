/** What reads and writes files by FFmpeg, loaded with the first file that needs it: not every installation has FFmpeg. */
export async function loadFfmpeg() {
  const [{ AV_LOG_QUIET }, { Log }] = await Promise.all([import('node-av/constants'), import('node-av/lib')]);
  Log.setLevel(AV_LOG_QUIET);
  const [{ AvSource }, { AvWriter }] = await Promise.all([
    import('./av-source.ts'),
    import('./av-writer.ts'),
  ]);
  return { AvSource, AvWriter };
}
