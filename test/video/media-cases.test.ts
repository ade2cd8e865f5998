import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { MediaReader } from '../../src/video/read.ts';
import { noSharedData, sharedData } from './fixtures.ts';

const folder = join(sharedData, 'media-cases');
const reader = new MediaReader({ processes: 2 });
afterAll(async () => {
  await reader[Symbol.asyncDispose]();
});

// Frames that each file gives, 0 where it is refused: what `ffprobe -count_frames` of FFmpeg 5.1 says of all of them but
// the VVC one, which it cannot decode (there, what the container claims).
const golden: readonly (readonly [frames: number, name: string])[] = [
  [0, '3gp-bbb_mono_16kHz_23.05kbps_amrwb.3gp'],
  [0, '3gp-bbb_mono_8kHz_12.2kbps_amrnb.3gp'],
  [96, 'avi-sample-unflagged-audio-keyframes.avi'],
  [58, 'avi-sample-with-large-length.avi'],
  [96, 'avi-sample.avi'],
  [0, 'cmaf-multi-segment-audio_init.mp4'],
  [30, 'dash-multi-period-with-offset-sample.video.mp4'],
  [0, 'dash-multi-track-with-offset-sample.audio.mp4'],
  [30, 'dash-multi-track-with-offset-sample.video.mp4'],
  [0, 'dash-webvtt-in-mp4-multiple-segments-text_init.mp4'],
  [30, 'dash-webvtt-in-mp4-sample.video.mp4'],
  [71, 'flv-sample-with-key-frame-index.flv'],
  [30, 'flv-sample.flv'],
  [58, 'hls-cea608-sd-hls0000000000.ts'],
  [0, 'hls-multi-segment-init.mp4'],
  [30, 'mkv-sample_av1.mkv'],
  [150, 'mkv-sample_with_chapters.mkv'],
  [0, 'mkv-subsample_encrypted_noaltref.webm'],
  [15, 'mp4-bbb_176x144_128kbps_15fps_h263.3gp'],
  [120, 'mp4-bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4'],
  [0, 'mp4-bbb_mono_16kHz_23.05kbps_amrwb.3gp'],
  [0, 'mp4-bbb_mono_8kHz_12.2kbps_amrnb.3gp'],
  [30, 'mp4-bt601.mp4'],
  [30, 'mp4-h265_bframes.mp4'],
  [12, 'mp4-iibbibb_editlist_videoonly.mp4'],
  [125, 'mp4-postroll-5s.mp4'],
  [125, 'mp4-preroll-5s.mp4'],
  [0, 'mp4-sample_alac.mp4'],
  [0, 'mp4-sample_alac_20bit.mp4'],
  [0, 'mp4-sample_audio_only.mp4'],
  [30, 'mp4-sample_av1.mp4'],
  [0, 'mp4-sample_dthd.mp4'],
  [0, 'mp4-sample_fixed_rechunk_no_elst.mp4'],
  [0, 'mp4-sample_fpcm_32be.mp4'],
  [30, 'mp4-sample_fragmented_seekable.mp4'],
  [30, 'mp4-sample_fragmented_sei.mp4'],
  [0, 'mp4-sample_fragmented_sideloaded_track.mp4'],
  [30, 'mp4-sample_fragmented_unsupported_brands.mp4'],
  [30, 'mp4-sample_ipcm_16be.mp4'],
  [30, 'mp4-sample_ipcm_24le.mp4'],
  [0, 'mp4-sample_malformed_free_box.mp4'],
  [30, 'mp4-sample_mdat_too_long.mp4'],
  [30, 'mp4-sample_missing_stsd.mp4'],
  [0, 'mp4-sample_mp2_audio.mp4'],
  [30, 'mp4-sample_no_bframes.mp4'],
  [30, 'mp4-sample_partially_fragmented.mp4'],
  [72, 'mp4-sample_shorter_audio.mp4'],
  [30, 'mp4-sample_simple.mp4'],
  [30, 'mp4-sample_srgb.mp4'],
  [120, 'mp4-sample_vvc.mp4'],
  [30, 'mp4-sample_with_av1c.mp4'],
  [30, 'mp4-sample_with_btrt.mp4'],
  [9, 'mp4-sample_with_color_info.mp4'],
  [60, 'mp4-sample_with_colr_mdcv_and_clli.mp4'],
  [30, 'mp4-sample_with_increasing_timestamps.mp4'],
  [29, 'mp4-sample_with_invalid_nalu.mp4'],
  [30, 'mp4-sample_with_metadata.mp4'],
  [30, 'mp4-sample_with_numeric_genre.mp4'],
  [300, 'mp4-silent-black-10s.mp4'],
  [3, 'ts-sample_h262_mpeg_audio.ps'],
  [25, 'ts-sample_h263.ts'],
  [30, 'ts-sample_h264_iframes_only.ts'],
  [3, 'ts-sample_h264_mpeg_audio.ts'],
  [3, 'ts-sample_h264_no_access_unit_delimiters.ts'],
  [0, 'ts-sample_mpeg_audio_with_audio_type.ts'],
  [0, 'ts-sample_mpegh_bl_configchange_cont.ts'],
  [3, 'ts-sample_scte35.ts'],
  [0, 'vp9-invalid-bitstream.webm'],
];
const incomplete = new Map([['mp4-sample_with_invalid_nalu.mp4', /1 coded picture could not be decoded/]]);

describe.skipIf(noSharedData)(`media met in the wild (${noSharedData ?? folder})`, () => {
  test.each(golden)('%i frames in %s', async (frames, name) => {
    const path = join(folder, name);
    const result = await reader
      .read(path, { onShortfall: 'report' })
      .catch((error: unknown) => error as Error);
    if (result instanceof Error) {
      expect(result).toBeInstanceOf(UserError);
      expect(result.message.startsWith(`${path}: `) && !result.message.includes('\n'), result.message).toBe(
        true,
      );
      expect(frames, result.message).toBe(0);
      return;
    }
    const { video, info, report } = result;
    expect(video.frames).toBe(frames);
    expect([video.width, video.height]).toEqual([info.width, info.height]);
    expect(video.data.length).toBe(frames * video.width * video.height * 3);
    expect(video.timestamps.length).toBe(frames);
    expect(video.timestamps.every((t, i) => t >= 0 && (i === 0 || t > video.timestamps[i - 1]!))).toBe(true);
    const expected = incomplete.get(name);
    if (expected) expect(report.shortfall?.reason).toMatch(expected);
    else expect(report.shortfall).toBeUndefined();
  });

  test('the table names every file', () => {
    expect(readdirSync(folder).sort()).toEqual(golden.map(([, name]) => name).sort());
  });

  test('an edit list hides its pictures and leaves no negative times', async () => {
    const { video } = await reader.read(join(folder, 'mp4-iibbibb_editlist_videoonly.mp4'));
    expect([...video.timestamps]).toEqual(Array.from({ length: 12 }, (_, i) => i));
  });

  test('rotation and non-square pixels are applied', async () => {
    const turned = await reader.probe(join(folder, 'mp4-sample_with_color_info.mp4'));
    expect(turned).toMatchObject({
      width: 1080,
      height: 1920,
      rotation: 90,
      coded: { width: 1920, height: 1080 },
    });
    const wide = await reader.probe(join(folder, 'mp4-bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4'));
    expect(wide).toMatchObject({ width: 1137, height: 640, coded: { width: 800, height: 640 } });
  });
});
